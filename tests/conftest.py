"""Shared fixtures: connections to a real nats-server, with the streams created by the migrate step."""

import asyncio
import gc
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from nats.js import JetStreamContext
from nats.js.api import StreamInfo
from xdist.scheduler import LoadFileScheduling

from contracts import subjects
from contracts.aggregates import AnyEvent
from contracts.commands.base import CommandMetadata
from contracts.commits import CommitLog, build_commit
from contracts.errors import Conflict, Unavailable
from contracts.ids import CommandId, ulid
from contracts.wire.log.event_log import EventLog
from contracts.wire.log.migration import _ensure_log_created, migrate
from contracts.wire.log.streams import CONSUMERS, stream_configs
from contracts.wire.server.accounts import Role
from contracts.wire.server.embedded import EmbeddedServer
from contracts.wire.service.bus import Bus, connect
from tests.limits import WAIT

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ONE_STACK = frozenset(
    f"tests/acceptance/test_{name}.py" for name in ("bad_input", "erase", "event_stream", "eyes", "rebuild")
)
"""Files whose tests share one running stack, so they run in the same process."""
LONGEST_FIRST = (
    "acceptance",
    "demo_world",
    "trainer",
    "loratory",
    "test_compose.py",
    "test_docs_commands.py",
    "gateway",
)
"""What of tests/ has the longest files, in this order: a long one that starts last would leave a core idle."""
LEASE = 2.0
"""Seconds; short, because some tests wait for it to expire."""

STREAMS = {str(config.name): config for config in stream_configs()}
"""What the migrate step creates, by name."""

BusOf = Callable[[Role], Awaitable[Bus]]

# Files run in parallel on few cores, and the models of tests are too small to gain from a second thread. Set before any
# test imports torch, and inherited by all processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is no failure.
hypothesis.settings.register_profile("all", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("all"), max_examples=25)


def command_metadata(command: str | None = None, *, actor: str = "user:test", fingerprint: str = "") -> CommandMetadata:
    """The metadata of a command in a test."""
    return CommandMetadata(command_id=CommandId(command or ulid()), actor=actor, at=NOW, fingerprint=fingerprint)


async def last_sequence(log: EventLog) -> int:
    """Read again where the server took longer than the two seconds that a read waits, as on a busy machine."""
    async with asyncio.timeout(WAIT):
        while True:
            with suppress(Unavailable):
                return (await log.end())[1]


async def append_events(
    bus: Bus, aggregate_kind: str, aggregate_id: str, *events: AnyEvent, metadata: CommandMetadata | None = None
) -> int:
    """Append as the catalog does while a worker appends too: after a lost race again. The sequence of the commit."""
    return await append_to(EventLog(bus), aggregate_kind, aggregate_id, *events, metadata=metadata)


async def append_to(
    log: CommitLog, aggregate_kind: str, aggregate_id: str, *events: AnyEvent, metadata: CommandMetadata | None = None
) -> int:
    """The same, on any log."""
    while True:
        revision = (await log.load(aggregate_kind, aggregate_id)).revision
        commit = build_commit(
            *(aggregate_kind, aggregate_id, events),
            expected_revision=revision,
            metadata=metadata or command_metadata(),
        )
        try:
            return (await log.append(commit, revision)).sequence
        except Conflict:
            continue


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A nats-server of its own, for tests that stop it, damage its files or look into its folder."""
    async with EmbeddedServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The nats-server of all other tests; its streams are created anew for each. It syncs nothing, for speed."""
    with asyncio.Runner() as runner:
        server = EmbeddedServer(tmp_path_factory.mktemp("nats"), durable=False)
        runner.run(server.start())
        yield server
        runner.run(server.stop())


@pytest.fixture
def server_in_use(request: pytest.FixtureRequest) -> EmbeddedServer:
    """The `server` of this test if it asks for one, else the shared one."""
    server = request.getfixturevalue("server" if "server" in request.fixturenames else "shared_server")
    assert isinstance(server, EmbeddedServer)
    return server


@pytest.fixture
async def bus_of(server_in_use: EmbeddedServer) -> AsyncIterator[BusOf]:
    """Opens connections in a role; the streams exist and are empty."""
    opened: list[Bus] = []

    async def open_as(role: Role) -> Bus:
        bus = await connect(server_in_use.url, *server_in_use.credentials(role), f"test-{role}")
        opened.append(bus)
        return bus

    await empty_streams(await open_as("admin"), server_in_use)
    yield open_as
    for bus in opened:
        await bus.close()


async def empty_streams(admin: Bus, server: EmbeddedServer) -> None:
    """Creates all streams, but for those that are still as the migrate step has created them."""
    js = admin.jetstream()
    streams = {str(stream.config.name): stream for stream in await js.streams_info()}
    kept = {name for name, stream in streams.items() if await _is_unused(js, stream)}
    for name in streams.keys() - kept:
        await js.delete_stream(name)
    # The server deletes their files afterwards, under names with a dot. A stream that is created before that is done
    # may find no folder, or the messages of the old one: then a catalog waits for a lease that nobody holds any more.
    while any(server.folder.glob("streams/jetstream/*/streams/.*")):  # noqa: ASYNC110 - another process's files
        await asyncio.sleep(0.002)
    missing = STREAMS.keys() - kept
    if missing == {subjects.EVENTS}:  # most tests use no other, and the whole step takes three times as long
        await js.add_stream(replace(STREAMS[subjects.EVENTS], metadata={"log_id": ulid()}))
        await _ensure_log_created(admin, NOW, None)
    elif missing:
        await migrate(admin, at=NOW, lease=LEASE)


async def _is_unused(js: JetStreamContext, stream: StreamInfo) -> bool:
    """Whether nothing was put into a stream (into the log: only its first event), and its settings are unchanged."""
    expected = STREAMS.get(str(stream.config.name))
    puts = 1 if expected is STREAMS[subjects.EVENTS] else 0
    leases = [LEASE] * len(CONSUMERS) if expected is STREAMS[subjects.QUEUE] else []
    return (
        expected is not None
        and stream.state.last_seq == puts
        and stream.state.consumer_count == len(leases)
        and all(getattr(stream.config, name) == value for name, value in vars(expected).items() if value is not None)
        and (not leases or [consumer.config.ack_wait for consumer in await js.consumers_info(subjects.QUEUE)] == leases)
    )


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Each file runs in one of the parallel processes, those of `ONE_STACK` together."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "one stack" if file in ONE_STACK else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    return FileScheduling(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also run the tests that are marked slow")


def pytest_configure(config: pytest.Config) -> None:
    """Property tests have a quarter of their examples without `--all`; see also `tests.limits.examples`."""
    hypothesis.settings.load_profile("all" if config.getoption("--all") else "quick")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected lives as long as the process: it is not searched for garbage, now or during the tests."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `--all`, a slow test runs only if its file or itself is named, or -k or -m selects it.

    A drill takes minutes: it runs only if its file or itself is named, or with `-m drill`. The longest come first.
    """
    marks = ["slow"] * _leaves_out_slow(config) + ["drill"] * _leaves_out_drills(config)
    named = {str(config.invocation_params.dir / argument.partition("::")[0]) for argument in config.args}
    left_out = [item for item in items if _has_mark(item, marks) and str(item.path) not in named]
    items[:] = sorted((item for item in items if item not in left_out), key=_place)
    config.hook.pytest_deselected(items=left_out)


def _place(item: pytest.Item) -> int:
    """Files keep their order within each place."""
    parts = {*item.path.parts}
    return next((place for place, name in enumerate(LONGEST_FIRST) if name in parts), len(LONGEST_FIRST))


def _has_mark(item: pytest.Item, marks: Sequence[str]) -> bool:
    return any(item.get_closest_marker(mark) for mark in marks)


def _leaves_out_drills(config: pytest.Config) -> bool:
    return "drill" not in str(config.getoption("-m"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _leaves_out_slow(config):
        terminalreporter.write_line("Without --all (ARGS=--all), tests marked slow run only if they are named.")


def _leaves_out_slow(config: pytest.Config) -> bool:
    return not (config.getoption("--all") or config.getoption("-k") or config.getoption("-m"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """Fail a test that is skipped for an unlisted reason, so that no test is skipped unnoticed. See tests/skips.txt."""
    return _fail_unlisted_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """The same for whole files."""
    return _fail_unlisted_skip((yield))


def _fail_unlisted_skip(report: Any) -> Any:
    # On other platforms, tests that need POSIX or Linux are skipped as well.
    if report.skipped and not hasattr(report, "wasxfail") and sys.platform == "linux":
        reason = report.longrepr[-1].removeprefix("Skipped: ")
        if not any(reason == allowed or reason.startswith(f"{allowed}:") for allowed in _allowed_skips()):
            report.outcome = "failed"
            report.longrepr = f"skipped, but {reason!r} is not an allowed reason of tests/skips.txt"
    return report


def _allowed_skips() -> list[str]:
    lines = (Path(__file__).parent / "skips.txt").read_text(encoding="utf-8").splitlines()
    listed = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    allowed = os.environ.get("LORATORY_SKIPS_ALLOWED")
    return listed if allowed is None else [reason for reason in listed if reason in allowed.split(",")]
