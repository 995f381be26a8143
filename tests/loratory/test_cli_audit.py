"""`loratory audit`, on a running server and on a stopped data folder."""

import json
from pathlib import Path

import msgspec
import pytest

from contracts.audit import AuditHead
from tests.loratory.conftest import Cli


@pytest.mark.slow
def test_the_log_is_verified_against_an_exported_head(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "head.json"
    assert cli("audit", "head", "-o", file) == 0
    head = msgspec.json.decode(file.read_bytes(), type=AuditHead)
    assert cli.out == f"{file}: commit {head.sequence}, {head.chain}\n"

    assert cli("datasets", "create", "written after the head") == 0
    assert cli("audit", "verify", "--head", file) == 0
    assert cli.out.splitlines()[-1] == "history is intact"
    assert cli("audit", "verify", "--json") == 0
    report = json.loads(cli.out)
    assert report["commits"] == report["compared"] > head.sequence
    assert report["damage"] == []


@pytest.mark.slow
def test_the_head_is_printed_without_a_file(cli: Cli) -> None:
    assert cli("audit", "head") == 0
    assert set(json.loads(cli.out)) == {"log_id", "sequence", "chain", "at", "public_key", "signature"}


@pytest.mark.slow
def test_a_forged_head_is_exit_code_1_with_the_reason(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "head.json"
    assert cli("audit", "head", "--out", file) == 0
    head = msgspec.json.decode(file.read_bytes(), type=AuditHead)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(head, chain="0" * 64)))
    assert cli("audit", "verify", "--head", file) == 1
    assert cli.out.splitlines()[-1].startswith(f"head changed from commit {head.sequence} on: the head of commit")


def test_a_file_without_a_head_is_refused_before_any_request(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "letter"
    file.write_text("dear …")
    assert cli("audit", "verify", "--head", file) == 2
    assert cli.err.startswith(f"loratory: {file} does not contain the head of a log: ")
    assert cli("audit", "verify", "--data", tmp_path) == 2
    assert "is not a Loratory data folder" in cli.err
