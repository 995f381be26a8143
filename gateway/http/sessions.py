"""Sessions of browsers: what a session's cookie holds, until it is closed or its time is over.

A session is signed with the API key and a secret in a file, so it outlives the gateway. Those that were closed are
listed in that file: who has their cookies cannot use them. Without the file, all sessions are closed.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from contracts.errors import LogFull, Unavailable
from contracts.wire.system.files import NO_SPACE, write_atomically

SESSION_SECONDS = 30 * 86_400
SECRET_BYTES, ID_BYTES = 32, 16

_log = structlog.get_logger()


class _Stored(msgspec.Struct):
    """`closed`: ids of sessions, with the times at which they would have ended anyway."""

    secret: str
    closed: dict[str, int]


class Sessions:
    """The sessions of one API key. Several gateways may share the file."""

    def __init__(self, path: Path, key: str, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._key = key
        self._clock = clock
        self._stored = _Stored("", {})
        self._read_at: tuple[int, int] | None = None
        """Inode and time of change of the file when it was read."""

    def open(self) -> str:
        """The cookie of a new session. Unavailable or LogFull: the file cannot be written."""
        if not self._read().secret:
            self._write(_Stored(secrets.token_hex(SECRET_BYTES), {}))
        content = f"{secrets.token_hex(ID_BYTES)}.{int(self._clock()) + SESSION_SECONDS}"
        return f"{content}.{self._signature(content)}"

    def is_open(self, cookie: str) -> bool:
        content, _, signature = cookie.rpartition(".")
        stored = self._read()
        if not stored.secret or not hmac.compare_digest(signature.encode(), self._signature(content).encode()):
            return False
        session, _, ends = content.partition(".")
        return session not in stored.closed and int(ends) > self._clock()

    def close(self, cookie: str) -> None:
        """From now on the cookie is worth nothing. One that is no open session's changes nothing.

        Unavailable or LogFull: the file cannot be written.
        """
        if not self.is_open(cookie):
            return
        session, ends, _ = cookie.split(".")
        stored, now = self._read(), self._clock()
        closed = {one: until for one, until in stored.closed.items() if until > now}
        self._write(_Stored(stored.secret, {**closed, session: int(ends)}))

    def _signature(self, content: str) -> str:
        secret = hashlib.sha256(f"{self._stored.secret} {self._key}".encode()).digest()
        return hmac.digest(secret, content.encode(), "sha256").hex()

    def _read(self) -> _Stored:
        """What the file holds now; without a file, or with one that is damaged, nothing."""
        try:
            found = self._path.stat()
            if self._read_at != (found.st_ino, found.st_mtime_ns):
                self._stored = msgspec.json.decode(self._path.read_bytes(), type=_Stored)
                self._read_at = found.st_ino, found.st_mtime_ns
        except FileNotFoundError:
            self._stored, self._read_at = _Stored("", {}), None
        except (OSError, msgspec.DecodeError) as error:
            _log.warning("sessions_unreadable", path=str(self._path), reason=str(error))
            self._stored, self._read_at = _Stored("", {}), None
        return self._stored

    def _write(self, stored: _Stored) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, msgspec.json.encode(stored), mode=0o600)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise LogFull("the disk of the gateway is full; no session was opened or closed") from error
            raise Unavailable(f"sessions cannot be stored: {error.strerror}", service="gateway") from error
        self._read()
