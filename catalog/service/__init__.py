"""The catalog's command handlers: load, decide, append. One file per command family, on a shared command executor."""
