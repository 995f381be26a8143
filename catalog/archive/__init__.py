"""Every commit of the log verbatim, chained by hashes, in a file apart from NATS: backup, audit source, and the witness
that says when the log was cut, changed, replaced or put back.

`chain` computes the hashes again, pure · `file` holds the rows · `compare` lays the log beside them · `judge` is the
archive as the catalog has it. What the entries say is asked in `catalog.entries`.
"""

from catalog.archive.chain import Tail, Walk
from catalog.archive.compare import Comparison, compare, dated
from catalog.archive.judge import Archive

__all__ = ["Archive", "Comparison", "Tail", "Walk", "compare", "dated"]
