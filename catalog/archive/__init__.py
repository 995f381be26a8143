"""Every commit of the log verbatim, chained by hashes, in a file apart from NATS.

It is a backup, the source of audits, and it detects a log that was truncated, changed, replaced or rolled back.
`chain` recomputes the hashes (pure) · `file` holds the rows · `compare` compares the log with them · `archive` verifies
the log for the catalog. Queries on the entries are in `catalog.entries`.
"""

from catalog.archive.archive import Archive
from catalog.archive.chain import ChainVerification, Tail
from catalog.archive.compare import Comparison, compare, with_last_good_time

__all__ = ["Archive", "ChainVerification", "Comparison", "Tail", "compare", "with_last_good_time"]
