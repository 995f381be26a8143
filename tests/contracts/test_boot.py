"""Start-up shared by all services: settings, logs, health, exit codes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from contracts.errors import SetupError
from contracts.wire.service.boot import FINAL_EXIT_CODES, NOT_NOW, distributions_of, refuse_foreign_packages
from contracts.wire.service.health import MAX_REPORT_AGE_SECONDS, Health, check, unready_reason
from contracts.wire.service.settings import read_settings
from tests.limits import WAIT


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    nats_url: str
    data: Path = Path("data")
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8000
    offline: bool = False
    hosts: tuple[str, ...] = ()
    password: str | None = None
    blobs: Path | None = None

    def __post_init__(self) -> None:
        if self.offline and self.hosts:
            raise ValueError("hosts cannot be used offline")


def test_variables_are_converted_to_the_types_of_the_settings() -> None:
    settings = read_settings(
        Settings,
        {
            "LORATORY_NATS_URL": "nats://here",
            "LORATORY_DATA": "/var/loratory",
            "LORATORY_PORT": "0",
            "LORATORY_HOSTS": "a.example, b.example,",
            "LORATORY_BLOBS": "",
            "LORATORY_OF_ANOTHER_SERVICE": "x",
            "PATH": "/bin",
        },
    )
    assert settings == Settings(
        nats_url="nats://here", data=Path("/var/loratory"), port=0, hosts=("a.example", "b.example")
    )


def test_a_secret_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush\n")
    environ = {"LORATORY_NATS_URL": "n", "LORATORY_PASSWORD_FILE": str(tmp_path / "secret")}
    assert read_settings(Settings, environ).password == "hush"
    with pytest.raises(SetupError, match="LORATORY_PASSWORD is not valid: LORATORY_PASSWORD_FILE is set as well"):
        read_settings(Settings, environ | {"LORATORY_PASSWORD": "other"})
    with pytest.raises(SetupError, match="LORATORY_PASSWORD_FILE cannot be read: No such file"):
        read_settings(Settings, {"LORATORY_NATS_URL": "n", "LORATORY_PASSWORD_FILE": "/nowhere"})


def test_all_invalid_settings_are_named_at_once_without_their_values() -> None:
    with pytest.raises(SetupError) as caught:
        read_settings(Settings, {"LORATORY_PORT": "70000", "LORATORY_OFFLINE": "hunter2"})
    assert all(name in str(caught.value) for name in ("LORATORY_NATS_URL", "LORATORY_PORT", "LORATORY_OFFLINE"))
    assert "hunter2" not in str(caught.value)


def test_inconsistent_settings_are_refused() -> None:
    with pytest.raises(SetupError, match="hosts cannot be used offline"):
        read_settings(Settings, {"LORATORY_NATS_URL": "n", "LORATORY_OFFLINE": "true", "LORATORY_HOSTS": "a"})


def test_a_service_is_ready_when_all_checks_are_and_otherwise_reports_why_not(tmp_path: Path) -> None:
    health = Health("catalog", ["bus", "log"], pid=os.getpid())
    file = tmp_path / "health.json"

    def reason_at(now: float) -> str:
        file.write_bytes(msgspec.json.encode(health.report(at=1000.0)))
        return unready_reason(file, now)

    assert "has not started" in unready_reason(file, 1000.0)
    health.set("bus", True)
    health.set("log", False, "41 events behind")
    assert not health.report(at=1000.0).ready
    assert reason_at(1000.0) == "catalog is not ready: log: 41 events behind"
    health.set("log", True)
    assert health.ready
    assert reason_at(1000.0 + MAX_REPORT_AGE_SECONDS) == ""
    assert "dead or blocked" in reason_at(1001.0 + MAX_REPORT_AGE_SECONDS)
    with pytest.raises(KeyError):
        health.set("bsu", True)
    file.write_bytes(b"{")
    assert "cannot be read" in unready_reason(file, 1000.0)


def test_a_degraded_service_is_ready_and_says_what_is_wrong() -> None:
    health = Health("catalog", ["log"], pid=os.getpid())
    health.set("log", True)
    health.set_degraded("2 pictures are missing")
    report = health.report(at=time.time())
    assert (report.ready, report.degraded) == (True, "2 pictures are missing")
    health.set_degraded("")
    assert health.report(at=time.time()).degraded == ""


def test_the_report_of_a_dead_process_does_not_count(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    report = Health("catalog", [], pid=child.pid).report(at=time.time())
    (tmp_path / "health.json").write_bytes(msgspec.json.encode(report))
    assert "is dead" in unready_reason(tmp_path / "health.json", time.time())


async def test_a_report_that_cannot_be_written_does_not_stop_the_service(tmp_path: Path) -> None:
    health, file = Health("catalog", ["bus"], pid=os.getpid()), tmp_path / "run" / "catalog.json"
    (file.parent / f".{file.name}.draft").mkdir(parents=True)  # fails like a full disk, also for root
    running = asyncio.create_task(health.run(file))
    await asyncio.sleep(0.05)
    assert not running.done()
    assert not file.exists()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_running_service_updates_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    health = Health("tagger", ["bus"], pid=os.getpid())
    file = tmp_path / "run" / "tagger.json"
    assert check(file) == 1
    running = asyncio.create_task(health.run(file))
    await asyncio.sleep(0)
    assert check(file) == 1
    assert capsys.readouterr().err.endswith("tagger is not ready: bus: not yet\n")
    health.set("bus", True)
    async with asyncio.timeout(WAIT):
        while check(file) != 0:  # noqa: ASYNC110 - a file, as another process would poll it
            await asyncio.sleep(0.05)
    assert list(file.parent.iterdir()) == [file]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert "has not started" in unready_reason(file, time.time())


async def run_service(body: str, *, stop_signal: signal.Signals | None = None) -> tuple[int, str, str]:
    """Runs a service with this body of `main`, and sends a signal after its first line of output.

    Returns exit code, stdout and stderr.
    """
    script = (
        "import asyncio, sys, structlog\n"
        "from contracts.errors import *\n"
        "from contracts.wire.service.boot import configure_logs, run\n"
        "configure_logs('tested')\n"
        "async def main():\n" + "".join(f"    {line}\n" for line in body.splitlines()) + "sys.exit(run(main))\n"
    )
    pipe = asyncio.subprocess.PIPE
    service = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=pipe, stderr=pipe)
    assert service.stdout is not None
    first = b""
    if stop_signal is not None:
        first = await service.stdout.readline()
        service.send_signal(stop_signal)
    out, err = await service.communicate()
    assert service.returncode is not None
    return service.returncode, (first + out).decode(), err.decode()


RUN_UNTIL_CANCELLED = """
try:
    print("up", flush=True)
    await asyncio.sleep(600)
finally:
    await asyncio.sleep(0.01)
    print("cleaned up", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_shuts_a_service_down_cleanly(stop_signal: signal.Signals) -> None:
    assert await run_service(RUN_UNTIL_CANCELLED, stop_signal=stop_signal) == (0, "up\ncleaned up\n", "")


async def test_a_service_that_cannot_start_prints_one_sentence() -> None:
    assert await run_service("raise SetupError('no base folder')") == (2, "", "no base folder\n")


async def test_a_damaged_log_has_an_exit_code_of_its_own_even_in_a_group() -> None:
    group = "async with asyncio.TaskGroup() as tasks:\n    tasks.create_task(fail())\n    await asyncio.sleep(600)"
    body = f"async def fail():\n    raise LogDamaged('it was rolled back to 41')\n{group}"
    assert await run_service(body) == (3, "", "it was rolled back to 41\n")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("Unavailable('no connection to NATS')", "no connection to NATS\n"),
        ("LogFull('the log is full')", "the log is full\n"),
        ("OSError(28, 'there is no room for archive.db')", "there is no room for archive.db\n"),
        ("OSError(28, 'No space left on device', 'blobs/1')", "No space left on device: blobs/1\n"),
        ("ExceptionGroup('two', [OSError(28, 'No space left'), Unavailable('x')])", "No space left\n"),
    ],
)
async def test_what_is_missing_for_now_is_not_final(error: str, sentence: str) -> None:
    assert await run_service(f"raise {error}") == (NOT_NOW, "", sentence)
    assert NOT_NOW not in FINAL_EXIT_CODES


@pytest.mark.parametrize(
    ("other", "code"),
    [("LogDamaged('it is damaged')", 3), ("SetupError('it is damaged')", 2)],
)
async def test_damage_is_final_also_on_a_full_disk(other: str, code: int) -> None:
    group = f"raise ExceptionGroup('two', [OSError(28, 'No space left'), {other}])"
    assert await run_service(group) == (code, "", "it is damaged\n")
    assert code in FINAL_EXIT_CODES


async def test_a_bug_beside_a_full_disk_keeps_its_traceback() -> None:
    code, _, err = await run_service("raise ExceptionGroup('two', [OSError(28, 'No space left'), KeyError('a bug')])")
    assert (code, "a bug" in err) == (1, True)


async def test_any_other_error_prints_a_traceback() -> None:
    code, _, err = await run_service("raise RuntimeError('a bug')")
    assert code == 1
    assert "Traceback" in err
    assert "a bug" in err


async def test_log_lines_are_json_with_bound_ids_and_no_local_variables() -> None:
    body = (
        "import logging\n"
        "secret = 'hunter' + '2'\n"
        "log = structlog.get_logger()\n"
        "with structlog.contextvars.bound_contextvars(job_id='j1'):\n"
        "    await log.ainfo('checkpoint_saved', step=3)\n"
        "    await log.adebug('not_logged')\n"
        "    logging.getLogger('library').warning('hello %s', 'you')\n"
        "    try:\n"
        "        raise ValueError('bad')\n"
        "    except ValueError:\n"
        "        await log.aexception('attempt_failed')\n"
    )
    code, _, err = await run_service(body)
    assert code == 0
    saved, library, failed = [json.loads(line) for line in err.splitlines()]
    logged = {key: saved[key] for key in ("event", "level", "job_id", "step", "service")}
    assert logged == {"event": "checkpoint_saved", "level": "info", "job_id": "j1", "step": 3, "service": "tested"}
    assert (library["event"], library["logger"], library["job_id"]) == ("hello you", "library", "j1")
    assert failed["exception"][0]["exc_value"] == "bad"
    assert "hunter2" not in err


async def test_an_unknown_log_level_is_refused() -> None:
    code, _, err = await run_service("configure_logs('tested', 'loud')")
    assert (code, err) == (2, "'loud' is not a log level; use debug, info, warning or error\n")


def test_our_packages_come_from_our_distribution() -> None:
    refuse_foreign_packages()
    assert set().union(*distributions_of().values()) == {"loratory"}


def test_a_foreign_package_with_our_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "catalog_of_another").mkdir()
    (tmp_path / "catalog_of_another" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SetupError, match="another distribution"):
        refuse_foreign_packages(["catalog_of_another"])
