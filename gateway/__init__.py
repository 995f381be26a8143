"""The gateway: an HTTP and WebSocket API in front of the services. It stores nothing."""
