"""The child process, `python -m catalog.freezing.reader READ_MODEL DATASET`: one snapshot, requests on stdin.

Reading a large data set is mostly Python: in the catalog's process all requests would wait for it.
"""

import gc
import signal
import sys
from pathlib import Path
from typing import BinaryIO

from catalog.database import open_reader
from catalog.freezing.messages import PAGES, PLANS, REQUESTS
from catalog.freezing.pages import PageReader, plan
from catalog.freezing.source import Unsettled
from contracts.wire.system.pipe import claim_pipes

CACHE_KIB = 32 * 1024


def main() -> None:
    path, dataset_id = sys.argv[1:]
    requests, results = claim_pipes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; this ends when its pipe closes
    gc.disable()  # what is read has no cycles, and the process is short-lived
    try:
        _serve(Path(path), dataset_id, requests, results)
    except BrokenPipeError:
        return  # the parent is gone


def _serve(path: Path, dataset_id: str, requests: BinaryIO, results: BinaryIO) -> None:
    connection = open_reader(path)
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("BEGIN")
    planned = plan(dataset_id, connection)
    PLANS.write(results, planned)
    if isinstance(planned, Unsettled):
        return
    reader = PageReader(dataset_id)
    while request := REQUESTS.read(requests):
        PAGES.write(results, reader.make(request, connection))


if __name__ == "__main__":
    main()
