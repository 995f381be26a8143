"""Folders and zip files of other tools: one module for each layout, and `scan`, which puts together what they say."""
