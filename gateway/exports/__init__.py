"""Exports of data sets and versions: what their files are, and the stream that they leave as."""
