"""Reads a data set for a version of it: from a snapshot of this process, or of a child process if it is large."""
