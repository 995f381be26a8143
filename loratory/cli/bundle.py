"""`loratory doctor --bundle`: one zip file for a bug report, without secrets, private texts and names of this machine.

Every part is optional: what cannot be read, such as the health of a service that is down, is a line of `notes.txt`.
"""

import importlib.metadata
import os
import platform
import zipfile
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import httpx
import msgspec

from contracts import subjects
from contracts.errors import LoratoryError, SetupError
from contracts.wire.server.embedded import running_server
from contracts.wire.service.bus import connect
from contracts.wire.service.jetstream import find_stream
from contracts.wire.service.metrics_endpoint import Target
from contracts.wire.system.files import open_atomically
from loratory.child import run_python
from loratory.data_folder import DataFolder
from loratory.redaction import Redactor, is_secret
from loratory.services import SERVICES, service_environment

PART_BYTES = 1 << 20
"""Maximum size of one file of the bundle; of logs, the end is kept."""
FETCH_TIMEOUT_SECONDS = 5.0
ENDS_TIMEOUT_SECONDS = 60.0
MAX_COUNTED_FILES = 200_000
SHOWN_VARIABLES = ("LORATORY_", "OTEL_", "CUDA_", "OMP_", "PYTHON", "HF_")
GATEWAY_PATHS = {
    "health": "/health",
    "ready": "/health/ready",
    "status": "/api/v1/status",
    "version": "/api/v1/version",
}
STREAMS = (subjects.EVENTS, subjects.QUEUE, subjects.METRICS)
CREDENTIAL_FILES = ("*.json", "*.creds", "*.nk", "*.seed", "*.key", "keys/*")
MIN_CREDENTIAL_CHARACTERS = 16
NOTES = "notes.txt"
README = """\
Made by `loratory doctor --bundle` for a bug report. Secrets (keys, passwords, seeds, tokens), the path of the home
folder and the name of the machine were replaced. File names and captions of images are never in logs. Names of data
sets, tags, presets and LoRAs are not treated as private, and may occur. Look through the files before you send them.
"""
UNREADABLE = (LoratoryError, OSError, httpx.HTTPError, TimeoutError, msgspec.DecodeError)

Part = Callable[[], Awaitable[str]]


@dataclass(frozen=True, kw_only=True)
class BundleSource:
    """What a bundle is made from. `lines`: of each log."""

    folder: DataFolder
    environ: Mapping[str, str]
    url: str
    key: str | None
    lines: int


async def write_bundle(target: Path, source: BundleSource, checks: object) -> list[str]:
    """Writes the zip; returns the notes about parts that are missing. SetupError: the file exists already."""
    if target.exists():
        raise SetupError(f"{target} exists already; choose another name for the bundle")
    redactor = build_redactor(source)
    texts, notes = {"README.txt": README, "checks.json": _json(checks)}, []
    async with httpx.AsyncClient(timeout=FETCH_TIMEOUT_SECONDS, trust_env=False) as http:
        for name, part in _parts(source, http):
            try:
                texts[name] = await part()
            except UNREADABLE as error:
                notes.append(f"{name}: {redactor.redact(str(error) or type(error).__name__)}")
    texts[NOTES] = "\n".join([*notes, ""])
    with open_atomically(target, mode=0o600) as out, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(name, _end_of(redactor.redact(text)))
    return notes


def build_redactor(source: BundleSource) -> Redactor:
    """Knows the secrets of the environment and of the bus, the home folder, the data folder, and the host."""
    environ = source.environ
    secrets = [value for name, value in environ.items() if is_secret(name)]
    files = [Path(path) for name, path in environ.items() if name.startswith("LORATORY_") and name.endswith("_FILE")]
    secrets += [_read_end(file).strip() for file in files if file.is_file()]
    secrets += [source.key or "", *_bus_secrets(source.folder / "nats")]
    names = {
        str(source.folder.path): "(data)",
        str(source.folder.path.resolve()): "(data)",
        str(Path.home()): "~",
        platform.node(): "(host)",
    }
    return Redactor(secrets=secrets, names={text: name for text, name in names.items() if len(text) > 1})


def _bus_secrets(folder: Path) -> Iterator[str]:
    """The words in the credential files of the bus that are long enough to be one."""
    for pattern in CREDENTIAL_FILES:
        for file in filter(Path.is_file, folder.glob(pattern)):
            words = "".join(letter if letter.isalnum() or letter in "_-+/=" else " " for letter in _read_end(file))
            yield from (word for word in words.split() if len(word) >= MIN_CREDENTIAL_CHARACTERS)


def _parts(source: BundleSource, http: httpx.AsyncClient) -> Iterator[tuple[str, Part]]:
    """The name of each file of the bundle, and how it is made."""
    folder = source.folder
    yield "versions.json", _versions
    yield "settings.json", _of(partial(_settings, source))
    yield "files.json", _of(partial(_file_sizes, folder.path))
    yield "ends.json", partial(_ends, source)
    yield "streams.json", partial(_streams, folder)
    for name, path in GATEWAY_PATHS.items():
        yield f"gateway/{name}.json", partial(_fetch, http, source, path)
    for service in SERVICES:
        yield f"health/{service}.json", _of(partial(_read_end, folder.health_file(service)))
        yield f"metrics/{service}.txt", partial(_metrics, http, source, service)
    for log in [*(folder.log_file(service) for service in SERVICES), folder / "nats" / "server.log"]:
        yield f"logs/{log.name}", _of(partial(_last_lines, log, source.lines))


def _of(read: Callable[[], str]) -> Part:
    async def part() -> str:
        return read()

    return part


async def _versions() -> str:
    packages = {found.name: found.version for found in importlib.metadata.distributions()}
    return _json(
        {
            "loratory": importlib.metadata.version("loratory"),
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "packages": dict(sorted(packages.items())),
        }
    )


def _settings(source: BundleSource) -> str:
    redactor = build_redactor(source)
    shown = {name: value for name, value in source.environ.items() if name.startswith(SHOWN_VARIABLES)}
    return _json({name: redactor.setting(name, value) for name, value in sorted(shown.items())})


def _file_sizes(data: Path) -> str:
    """Number and bytes of the files in each folder; names only of the files of log and catalog, which are ours."""
    totals: dict[str, object] = {}
    for part in sorted(path for path in data.iterdir() if path.is_dir()):
        files = list(islice(_files_in(part), MAX_COUNTED_FILES))
        totals[part.name] = {"files": len(files), "bytes": sum(size for _, size in files)}
        if part.name in {"catalog", "nats"}:
            totals[f"{part.name}/"] = {str(file.relative_to(part)): size for file, size in files[:1000]}
    return _json(totals)


def _files_in(folder: Path) -> Iterator[tuple[Path, int]]:
    for path, _, names in os.walk(folder):
        for name in names:
            file = Path(path) / name
            if file.is_file() and not file.is_symlink():
                yield file, file.stat().st_size


async def _ends(source: BundleSource) -> str:
    """Where archive and read model end, from the catalog's files."""
    environment = service_environment("catalog", source.folder, given=source.environ, settings={})
    output = await run_python("-m", "catalog", "ends", timeout=ENDS_TIMEOUT_SECONDS, environ=environment)
    return output.decode()


async def _streams(folder: DataFolder) -> str:
    async with await connect(
        *running_server(folder / "nats", "catalog"), "doctor", timeout=FETCH_TIMEOUT_SECONDS
    ) as bus:
        found = {name: await find_stream(bus.jetstream(timeout=FETCH_TIMEOUT_SECONDS), name) for name in STREAMS}
    return _json(
        {
            name: None
            if info is None
            else {
                "messages": info.state.messages,
                "bytes": info.state.bytes,
                "first_sequence": info.state.first_seq,
                "last_sequence": info.state.last_seq,
                "consumers": info.state.consumer_count,
                "replicas": info.config.num_replicas,
            }
            for name, info in found.items()
        }
    )


async def _fetch(http: httpx.AsyncClient, source: BundleSource, path: str) -> str:
    headers = {"Authorization": f"Bearer {source.key}"} if source.key else {}
    return (await http.get(source.url + path, headers=headers)).text


async def _metrics(http: httpx.AsyncClient, source: BundleSource, service: str) -> str:
    file = source.folder / "run" / f"metrics-{service}.json"
    (target,) = msgspec.json.decode(file.read_bytes(), type=list[Target])
    return (await http.get(f"http://{target.targets[0]}/metrics")).raise_for_status().text


def _last_lines(file: Path, count: int) -> str:
    return "\n".join(_read_end(file).splitlines()[-count:]) + "\n"


def _read_end(file: Path) -> str:
    """The last PART_BYTES of a file."""
    with file.open("rb") as opened:
        opened.seek(max(0, opened.seek(0, os.SEEK_END) - PART_BYTES))
        return opened.read(PART_BYTES).decode(errors="replace")


def _end_of(text: str) -> bytes:
    return text.encode()[-PART_BYTES:]


def _json(content: object) -> str:
    return msgspec.json.format(msgspec.json.encode(content)).decode() + "\n"


def describe_bundle(target: Path, notes: Sequence[str]) -> Iterable[str]:
    yield f"wrote {target} ({target.stat().st_size} bytes)"
    yield from (f"  not in it: {note}" for note in notes)
