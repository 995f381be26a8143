"""Written by `make schemas`, never by hand."""

VERSION = 0xB6BFDEEF
"""A digest of tables and rows, computed by a test. A file with another version is rebuilt from the log."""
