"""Written by `make schemas`, never by hand."""

VERSION = 0xBE348EAC
"""A digest of tables and rows, computed by a test. A file with another version is rebuilt from the log."""
