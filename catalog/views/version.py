"""Written by `make schemas`, never by hand."""

VERSION = 0x207AE1C2
"""A digest of tables and rows, computed by a test. A file with another version is rebuilt from the log."""
