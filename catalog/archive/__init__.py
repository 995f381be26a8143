"""Every commit of the log verbatim, chained by hashes, in a file apart from NATS.

It is a backup, the source of audits, and it detects a log that was truncated, changed, replaced or rolled back.
`chain` recomputes the hashes (pure) · `file` holds the rows · `compare` compares the log with them · `archive` verifies
the log for the catalog. Queries on the entries are in `catalog.entries`.
"""
