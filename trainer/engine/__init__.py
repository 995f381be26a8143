"""The child process: it trains and tells. It knows no job and no bus, and ends when its pipe closes."""
