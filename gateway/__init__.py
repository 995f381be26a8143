"""The gateway: HTTP and WebSocket in, commands and queries out. It owns nothing."""
