"""`loratory audit`: what it says of a workshop that runs, and of one that is stopped."""

import json
from pathlib import Path

import msgspec

from contracts.audit import AuditHead
from tests.loratory.conftest import Cli


def test_a_head_is_kept_and_history_is_whole_by_it(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "head.json"
    assert cli("audit", "head", "--out", file) == 0
    head = msgspec.json.decode(file.read_bytes(), type=AuditHead)
    assert cli.out == f"{file}: commit {head.sequence}, {head.chain}\n"

    assert cli("datasets", "create", "written after the head") == 0
    assert cli("audit", "verify", "--head", file) == 0
    assert cli.out.splitlines()[-1] == "history is whole"
    assert cli("audit", "verify", "--json") == 0
    report = json.loads(cli.out)
    assert report["commits"] == report["compared"] > head.sequence
    assert report["damage"] == []


def test_a_head_is_told_without_a_file_too(cli: Cli) -> None:
    assert cli("audit", "head") == 0
    assert set(json.loads(cli.out)) == {"log_id", "sequence", "chain", "at", "public_key", "signature"}


def test_a_forged_head_is_exit_code_1_and_its_reason(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "head.json"
    assert cli("audit", "head", "--out", file) == 0
    head = msgspec.json.decode(file.read_bytes(), type=AuditHead)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(head, chain="0" * 64)))
    assert cli("audit", "verify", "--head", file) == 1
    assert cli.out.splitlines()[-1].startswith(f"head changed from commit {head.sequence} on: the head of commit")


def test_what_is_no_head_is_refused_before_anything_is_asked(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "letter"
    file.write_text("dear …")
    assert cli("audit", "verify", "--head", file) == 2
    assert cli.err.startswith(f"loratory: {file} holds no head of a log: ")
    assert cli("audit", "verify", "--data", tmp_path) == 2
    assert "is no data folder" in cli.err
