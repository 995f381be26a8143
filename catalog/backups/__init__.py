"""Backups: a folder with archive, keys, blobs and loss curves, and a manifest that lists its contents.

The archive holds every commit verbatim, so it is the log's backup too. `manifest`: file names and the manifest ·
`creation`: creates and updates a backup · `extraction`: verifies a backup and copies its files out.
"""
