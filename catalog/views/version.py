"""Written by `make schemas`, never by hand."""

VERSION = 0x53E3B453
"""A digest of tables and rows, computed by a test. A file with another version is rebuilt from the log."""
