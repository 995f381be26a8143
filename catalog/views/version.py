"""Written by `make schemas`, never by hand."""

VERSION = 0xDBE459EC
"""A digest of tables and rows, computed by a test. A file with another version is rebuilt from the log."""
