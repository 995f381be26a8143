"""`loratory doctor --bundle`: complete, without any secret, and possible in every state."""

import json
import platform
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from contracts.errors import SetupError
from loratory.cli.bundle import PART_BYTES, BundleSource, write_bundle
from loratory.data_folder import DataFolder
from loratory.services import SERVICES
from tests.acceptance.local_stack import LocalStack, cli
from tests.loratory.test_redaction import SEED

pytestmark = pytest.mark.slow

API_KEY = "k3y-of-the-api-that-nobody-may-see"
OTHER_SECRET = "n0body-may-see-this-either"
CAPTION, FILE_NAME = "a portrait of Zyxaline Quibbledorf", "private-picture-of-zyxaline.png"
LOGGED = (API_KEY, OTHER_SECRET, SEED)


def read(bundle: Path) -> dict[str, str]:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def source_at(folder: Path, **environ: str) -> BundleSource:
    return BundleSource(folder=DataFolder(folder), environ=environ, url="http://127.0.0.1:1", key=None, lines=1000)


async def test_a_bundle_is_written_although_nothing_runs_and_nothing_exists(tmp_path: Path) -> None:
    bundle = tmp_path / "report.zip"
    notes = await write_bundle(bundle, source_at(tmp_path / "nowhere"), [])
    found = read(bundle)
    assert {"README.txt", "checks.json", "versions.json", "settings.json", "notes.txt"} <= found.keys()
    assert json.loads(found["versions.json"])["packages"]["msgspec"]
    missing = {note.partition(":")[0] for note in notes}
    assert {"files.json", "streams.json", "gateway/health.json", "health/catalog.json", "logs/server.log"} <= missing
    assert found["notes.txt"].splitlines() == notes
    assert (bundle.stat().st_mode & 0o777) == 0o600
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(SetupError, match="exists already"):
        await write_bundle(bundle, source_at(tmp_path / "nowhere"), [])


async def test_parts_are_bounded_and_logs_keep_their_last_lines(tmp_path: Path) -> None:
    log = DataFolder(tmp_path).log_file("catalog")
    log.parent.mkdir()
    log.write_text("".join(f"line {number} {'x' * 2000}\n" for number in range(3000)))
    await write_bundle(tmp_path / "report.zip", source_at(tmp_path), [])
    text = read(tmp_path / "report.zip")["logs/catalog.log"]
    assert len(text.encode()) <= PART_BYTES
    assert text.splitlines()[-1].startswith("line 2999")
    assert len(text.splitlines()) > 400


async def test_secrets_of_files_that_settings_name_are_removed(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{API_KEY}\n")
    log = DataFolder(tmp_path).log_file("gateway")
    log.parent.mkdir()
    log.write_text(f"it was {API_KEY}\n")
    source = source_at(tmp_path, LORATORY_API_KEY_FILE=str(tmp_path / "key"), AWS_SECRET_ACCESS_KEY=OTHER_SECRET)
    await write_bundle(tmp_path / "report.zip", source, [])
    found = read(tmp_path / "report.zip")
    assert found["logs/gateway.log"] == "it was (removed)\n"
    assert API_KEY not in str(found)


@pytest.mark.slow
def test_no_secret_and_no_private_text_of_a_running_workshop_is_in_its_bundle(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.effect_noise((80, 64), 90).convert("RGB").save(pictures / FILE_NAME)
    (pictures / FILE_NAME).with_suffix(".txt").write_text(CAPTION)
    (pictures / "zyxaline-is-no-picture.png").write_text("no picture")
    stack = LocalStack(tmp_path / "data", workers=False, LORATORY_API_KEY=API_KEY)
    stack.start()
    try:
        own: dict[str, Any] = {"LORATORY_URL": stack.address, "LORATORY_KEY": API_KEY}
        assert cli("datasets", "create", "cats", **own).returncode == 0
        imported = cli("datasets", "import", "cats", str(pictures), **own)
        assert imported.returncode == 0, imported.stderr
        assert cli("datasets", "show", "no-such-set", **own).returncode == 1
        with (stack.data / "logs" / "catalog.log").open("a") as log:
            log.writelines(f'{{"event":"seeded","value":"{text}"}}\n' for text in LOGGED)
            log.write("nats://catalog:hunter2-in-a-url@127.0.0.1:4222\n")
        bundles = [_bundle(tmp_path / "running.zip", stack, own)]
    finally:
        stack.stop()
    bundles.append(_bundle(tmp_path / "stopped.zip", stack, own))
    words = bus_secrets(stack.data / "nats")
    assert words
    hidden = [API_KEY, OTHER_SECRET, SEED, "hunter2-in-a-url", "yxaline", *words, str(Path.home()) + "/"]
    hidden += [str(tmp_path), platform.node()] if len(platform.node()) > 1 else [str(tmp_path)]
    for bundle in bundles:
        for name, text in bundle.items():
            assert [word for word in hidden if word in text] == [], name
            assert len(text) <= PART_BYTES
    running, stopped = bundles
    assert json.loads(running["ends.json"])["archived"] == json.loads(stopped["ends.json"])["archived"] > 0
    assert json.loads(running["streams.json"])["EVT"]["last_sequence"] == json.loads(running["ends.json"])["archived"]
    assert json.loads(running["gateway/ready.json"])["ready"]
    assert "loratory_commands_total" in running["metrics/catalog.txt"]
    assert "loratory_http_requests_total" in running["metrics/gateway.txt"]
    assert '"event":"seeded"' in running["logs/catalog.log"]
    assert json.loads(running["files.json"])["blobs"]["files"] >= 2
    assert {note.partition(":")[0] for note in running["notes.txt"].splitlines()} == {
        f"{kind}/{service}.{suffix}"
        for service in SERVICES
        if service in ("tagger", "trainer")
        for kind, suffix in (("health", "json"), ("metrics", "txt"), ("logs", "log"))
    }


def bus_secrets(folder: Path) -> list[str]:
    """The passwords or seeds with which services connect to NATS."""
    files = [file for file in (folder / "users.json", *folder.glob("keys/*")) if file.is_file()]
    return [word for file in files for word in re.findall(r"[\w-]{30,}", file.read_text())]


def _bundle(target: Path, stack: LocalStack, environ: dict[str, Any]) -> dict[str, str]:
    given: dict[str, Any] = {"AWS_SECRET_ACCESS_KEY": OTHER_SECRET, "LORATORY_API_KEY": API_KEY, **environ}
    written = cli("doctor", "--data", stack.data, "--port", str(stack.port), "--bundle", target, **given)
    assert f"wrote {target}" in written.stdout, written.stderr
    return read(target)
