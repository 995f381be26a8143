"""Written by `make schemas`, never by hand."""

VERSION = 0x40F029A2
"""A digest of tables and rows, computed by a test. A file with another version is rebuilt from the log."""
