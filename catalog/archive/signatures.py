"""Verifies again who signed each archived commit, in several processes: a core checks some 7,000 a second."""

import asyncio
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import msgspec

from catalog.archive.file import ArchiveFile
from catalog.archive.rows import ARCHIVE, ENTRIES_AFTER, TRUSTED, read_entries
from catalog.database import Connection, open_reader
from contracts.aggregates import REGISTRY, SignerName
from contracts.commits import Commit, RecordedCommit
from contracts.events.log import LogCreated, LogRestored
from contracts.events.service_keys import ServiceKeyRegistered, ServiceKeyRetired, ServiceKeyRootEstablished
from contracts.signatures import is_valid, parse_signature, signed_bytes

RANGE_COMMITS = 4000
"""Commits that one process checks at a time; fewer are checked in a thread of this one."""
MAX_REPORTED = 100
END = 2**62


class KeyPeriod(msgspec.Struct, frozen=True):
    """A key may sign from after one sequence up to another."""

    signer: SignerName
    public_key: bytes
    after: int
    to: int = END


class SignedHistory(msgspec.Struct, frozen=True):
    """Which keys could sign when, and which log's id signatures named from a sequence on."""

    keys: dict[str, KeyPeriod]
    log_ids: list[tuple[int, str]]

    def log_id_at(self, sequence: int) -> str:
        return [log_id for first, log_id in self.log_ids if first <= sequence][-1]


def signed_history(connection: Connection) -> SignedHistory:
    """From the archived commits about the log and its keys."""
    history = SignedHistory({}, [])
    for entry in read_entries(connection, TRUSTED):
        if isinstance(entry, RecordedCommit):
            _note(history, entry.sequence, entry.commit)
    return history


def _note(history: SignedHistory, sequence: int, commit: Commit) -> None:
    for event in commit.events:
        match event:
            case LogCreated(log_id=log_id) | LogRestored(log_id=log_id):
                history.log_ids.append((sequence, log_id))
            case ServiceKeyRootEstablished(public_key=public):
                for key_id, key in history.keys.items():
                    if key.signer == "root" and key.to == END:
                        history.keys[key_id] = msgspec.structs.replace(key, to=sequence - 1)
                # It signs itself, and what was appended before the log named a root key.
                after = sequence - 1 if any(key.signer == "root" for key in history.keys.values()) else 0
                history.keys[commit.aggregate_id] = KeyPeriod("root", bytes.fromhex(public), after)
            case ServiceKeyRegistered(service=service, public_key=public):
                # Again where the service writes a newer schema: what it signed before stays as it is.
                history.keys.setdefault(commit.aggregate_id, KeyPeriod(service, bytes.fromhex(public), sequence))
            case ServiceKeyRetired():
                key = history.keys[commit.aggregate_id]
                history.keys[commit.aggregate_id] = msgspec.structs.replace(key, to=sequence)
            case _:
                pass


def unsigned(entries: Iterable[RecordedCommit], history: SignedHistory) -> list[int]:
    """The sequences of commits that no writer known at that point signed, or may append."""
    return [entry.sequence for entry in entries if not _is_signed(entry, history)]


def _is_signed(entry: RecordedCommit, history: SignedHistory) -> bool:
    if entry.sequence == 1:
        return not entry.signature
    signature = parse_signature(entry.signature)
    key = history.keys.get(signature.key_id) if signature else None
    if signature is None or key is None or not key.after < entry.sequence <= key.to:
        return False
    kind = REGISTRY.by_name[entry.commit.aggregate_kind]
    if not all(kind.may_append(key.signer, type(event)) for event in entry.commit.events):
        return False
    signed = signed_bytes(history.log_id_at(entry.sequence), entry.subject, entry.body)
    return is_valid(signature, key.public_key, signed)


def check_range(path: Path, history: SignedHistory, after: int, limit: int) -> list[int]:
    """`unsigned` of the next `limit` entries of an archive file."""
    with closing(open_reader(path)) as connection:
        entries = read_entries(connection, ENTRIES_AFTER, (after, limit))
        return unsigned((entry for entry in entries if isinstance(entry, RecordedCommit)), history)


async def check_signatures(file: ArchiveFile, last: int) -> Sequence[int]:
    """The first sequences up to `last` whose commits are not signed as they must be; empty: all are."""
    path, history = file.folder / ARCHIVE, await file.read(signed_history)
    starts = range(0, last, RANGE_COMMITS)
    if len(starts) <= 1:
        return await asyncio.to_thread(check_range, path, history, 0, last)
    loop, processes = asyncio.get_running_loop(), min(os.cpu_count() or 1, len(starts), 8)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        checks = [
            loop.run_in_executor(pool, check_range, path, history, start, min(RANGE_COMMITS, last - start))
            for start in starts
        ]
        try:
            found = [sequence for check in checks for sequence in await check]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return found[:MAX_REPORTED]
