"""A data folder with everything that people do, and its backup: written once by the first version of a format.

`python -m tests.acceptance.format_folder ZIP` packs a new one of today, and what it shows into a file beside it.
"""

import hashlib
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
from PIL import Image

from demo_world import pictures
from tests.acceptance.local_stack import LocalStack, cli
from tests.limits import WAIT

API = "/api/v1"
DERIVED = {
    "run",
    "keys",
    "staging",
    "cache",
    "logs",
    "loras",
    "server.conf",
    "server.log",
    "port",
    "lock",
    "backups.json",
}
"""Files and folders of a data folder that are made again: secrets of the services, and paths, among them."""
READ_MODEL = "read.db"
ZIP_TIME = (2026, 11, 27, 0, 0, 0)
DATA, BACKUP, BLOBS = "data", "backup", "blobs"
INTERRUPTED = "interrupted"
"""The name of a job that was stopped after its first checkpoint, and is not among what is shown."""
SHORT = {
    "length.count": 4,
    "data.resolution": 64,
    "adapter.rank": 2,
    "save.every": 2,
    "sampling.every": 4,
    "sampling.steps": 2,
}


TEXTS = ("momo, hat, (o_o:1.2), きつね", "score_9, hat, a \\(b\\)", "丘の上に立つ momo, in the evening light.", "")
"""Beside the pictures of a kohya folder; the last has none."""
ORIENTATION, MAKER = 0x0112, 0x010F
"""Tags of Exif."""


class Workshop:
    """A person at work: each request must succeed."""

    def __init__(self, stack: LocalStack, folder: Path) -> None:
        self.client, self.http, self.folder = stack.client(), stack.http(), folder

    def send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        answer = self.http.request(method, API + path, json={} if body is None else body)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def last_commit(self) -> int:
        return int(self.http.get(f"{API}/audit/head").raise_for_status().json()["sequence"])

    def undo(self, dataset: str, commit: int) -> int:
        """The commit that undoes it."""
        self.send("POST", f"/datasets/{dataset}/undo", {"commit": commit})
        return self.last_commit()

    def create(self, name: str, count: int, seed: int) -> list[str]:
        """A data set of drawn pictures; their ids."""
        pictures.write_pictures(self.folder / name, count=count, seed=seed, trigger="momo")
        self.client.create_dataset(name)
        self.client.import_folder(name, self.folder / name)
        return [image.id for image in self.client.images(name)]

    def curate(self) -> None:
        """Tags by hand and by model, captions, order, rules, thresholds, undo, removals, erasures, versions."""
        (self.folder / "basket").mkdir(parents=True)
        (self.folder / "basket" / "text.png").write_text("this is no picture")
        first, second, third, fourth, removed, erased, *_ = self.create("basket", 8, 3)
        self.client.wait_tagging(self.client.tag("basket", "demo").id, timeout=120)
        self.send("PATCH", f"/images/{first}/tags", {"add": ["momo", "きつね", "o_o"], "remove": ["bright"]})
        self.send("PUT", f"/images/{first}/tag-order", {"tags": ["o_o", "momo"]})
        self.send("PUT", f"/images/{second}/tags", {"tags": ["momo", "a tag (of hers)"]})
        self.send("PUT", f"/images/{second}/caption", {"caption": "momo on a hill, 丘の上"})
        self.send("PUT", f"/images/{third}/caption", {"caption": "to be undone"})
        self.undo("basket", self.last_commit())
        self.send("PUT", "/datasets/basket/thresholds", {"general": 0.3, "character": 0.8, "tags": {"bright": 0.9}})
        self.send("PUT", "/datasets/basket/rules", {"deny": ["dark"]})
        self.send("POST", "/datasets/basket/versions", {"trigger": "momo"})
        self.send("POST", "/datasets/basket/edits", {"all": True, "add": ["bulk one", "bulk two"], "remove": ["round"]})
        self.undo("basket", self.undo("basket", self.last_commit()))
        self.send("POST", "/datasets/basket/edits", {"filter": "momo", "withdraw": ["bulk one"]})
        self.send("POST", "/datasets/basket/reviewed", {"images": [first, fourth]})
        self.send("PATCH", "/datasets/basket", {"name": "renamed"})
        self.undo("renamed", self.last_commit())
        self.send("DELETE", f"/images/{fourth}")
        self.undo("basket", self.last_commit())
        self.send("DELETE", f"/images/{removed}")
        self.send("POST", f"/images/{erased}/erase")
        run = self.client.wait_tagging(self.client.tag("basket", "demo").id, timeout=120)
        self.send("POST", "/datasets/basket/undo", {"run": run.id})
        self.send("POST", "/datasets/basket/versions", {"trigger": "momo"})
        self.create("removed", 1, 11)
        self.send("DELETE", "/datasets/removed")
        self.create("erased", 1, 12)
        self.send("POST", "/datasets/erased/erase")

    def bring_in(self) -> None:
        """A folder with lists of tags, sentences, repeats, a mask and a JPEG with metadata; read another way later."""
        folder = self.folder / "kohya" / "3_momo girl"
        folder.mkdir(parents=True)
        drawn = pictures.write_pictures(self.folder / "drawn", count=4, seed=21, trigger="momo")
        for number, (picture, text) in enumerate(zip(drawn, TEXTS, strict=True)):
            with Image.open(picture) as opened:
                if number == 0:
                    exif = Image.Exif()
                    exif[ORIENTATION], exif[MAKER] = 6, "a phone"
                    opened.convert("RGB").save(folder / "0.jpg", exif=exif)
                else:
                    opened.save(folder / f"{number}.png")
                if number == 1:
                    Image.new("L", opened.size, 255).save(folder / "1-masklabel.png")
            if text:
                (folder / f"{number}.txt").write_text(text, encoding="utf-8")
        self.client.create_dataset("brought in")
        self.client.import_folder("brought in", folder.parent)
        self.client.read_texts("brought in", "caption")
        self.undo("brought in", self.last_commit())
        self.send("PUT", "/datasets/brought in/repeats", {"filter": "hat", "repeats": 5})
        settings = {"trigger": "momo", "template": 2, "style": {"words": "underscores", "escape": True}}
        self.send("PUT", "/datasets/brought in/text-settings", settings)
        self.send("POST", "/datasets/brought in/versions", {})

    def train(self) -> None:
        """A LoRA with checkpoints and a sample, and jobs that were cancelled, removed, and never started."""
        self.send("PUT", "/presets/ours", {"parent": "tiny-random-demo", "changes": SHORT})
        self.send("PUT", "/presets/theirs", {"parent": "ours", "changes": {"adapter.rank": 3}})
        self.send("DELETE", "/presets/theirs")
        job = self.client.train("basket", preset="ours", trigger="momo", name="a LoRA")
        assert self.client.wait_job(job.id, timeout=300).status == "completed"
        for name in ("draft", "cancelled", "removed"):
            body = {"dataset": "basket", "version": 2, "preset": "ours", "name": name, "labels": ["one", "two"]}
            job_id = self.send("POST", "/jobs", body)["id"]
            self.send("PATCH", f"/jobs/{job_id}", {"description": "of a folder", "priority": "high"})
            if name != "draft":
                self.send("POST", f"/jobs/{job_id}/cancel")
            if name == "removed":
                self.send("DELETE", f"/jobs/{job_id}")

    def train_until_first_checkpoint(self, name: str) -> None:
        """It has many more steps to go; stopping the services interrupts it."""
        longer: dict[str, object] = {"length.count": 150, "save.every": 15, "sampling.every": 150}
        job = self.client.train("basket", preset="ours", trigger="momo", name=name, changes=longer)
        deadline = time.monotonic() + WAIT
        while not list(_items(self.http, f"/jobs/{job.id}/checkpoints")):
            assert time.monotonic() < deadline, "there is no checkpoint"
            time.sleep(0.02)


def show(http: httpx.Client) -> dict[str, Any]:
    """What people made, by what it is called today; what later versions add to the answers is not in it."""
    datasets = {}
    for dataset in _items(http, "/datasets"):
        path = f"/datasets/{dataset['id']}"
        datasets[dataset["name"]] = {
            "thresholds": [dataset["thresholds"], dataset["tag_thresholds"]],
            "denied": dataset["denied_tags"],
            "images": [_image(http, image) for image in _items(http, f"{path}/images")],
            "history": [[entry["actor"], entry["type"]] for entry in _items(http, f"{path}/history")],
            "refused": [refusal["reason"] for refusal in _items(http, f"{path}/refusals")],
            "versions": [_version(http, path, version) for version in _items(http, f"{path}/versions")],
        }
        settings = http.get(f"{API}{path}/text-settings").raise_for_status().json()
        if settings["trigger"]:
            chosen = {name: settings[name] for name in ("trigger", "template", "style")}
            datasets[dataset["name"]]["text settings"] = chosen
    jobs = {job["name"]: _job(http, job) for job in _items(http, "/jobs") if job["name"] != INTERRUPTED}
    presets = {preset["name"]: preset["recipe"]["adapter"]["rank"] for preset in _items(http, "/presets")}
    return {"datasets": datasets, "jobs": jobs, "presets": {"ours": presets["ours"], "theirs": presets.get("theirs")}}


def _items(http: httpx.Client, path: str) -> Iterator[dict[str, Any]]:
    address: str | None = API + path
    while address is not None:
        answer = http.get(address).raise_for_status()
        yield from answer.json()["items"]
        address = answer.links["next"]["url"] if "next" in answer.links else None


def _hash(http: httpx.Client, path: str) -> str:
    return hashlib.sha256(http.get(API + path).raise_for_status().content).hexdigest()


def _image(http: httpx.Client, image: Mapping[str, Any]) -> dict[str, Any]:
    tags = http.get(f"{API}/images/{image['id']}/tags").raise_for_status().json()
    # Only where people said so: folders of before must show the same.
    said = {"repeats": image["repeats"]} if image["repeats"] != 1 else {}
    said |= {"mask": _hash(http, f"/images/{image['id']}/mask")} if image["mask"] else {}
    said |= {"training text": image["training_text"]} if image["training_text"] != image["caption"] else {}
    return said | {
        "name": image["name"],
        "caption": image["caption"],
        "reviewed": image["reviewed"],
        "tags": tags["tags"],
        "rejected": tags["rejected"],
        "picture": _hash(http, f"/images/{image['id']}/file"),
        "original": _hash(http, f"/images/{image['id']}/file?original=true"),
    }


def _version(http: httpx.Client, dataset: str, version: Mapping[str, Any]) -> dict[str, Any]:
    number = version["version"]
    diff = _items(http, f"{dataset}/versions/{number}/diff?from=1")
    return {"manifest": version["manifest"], "images": version["images"], "since the first": len(list(diff))}


def _job(http: httpx.Client, job: Mapping[str, Any]) -> dict[str, Any]:
    path = f"/jobs/{job['id']}"
    files, samples = _items(http, f"{path}/artifacts"), _items(http, f"{path}/samples")
    return {
        "status": job["status"],
        "description": job["description"],
        "labels": job["labels"],
        "steps": job["steps"],
        "files": {one["name"]: _hash(http, f"{path}/artifacts/{one['name']}") for one in files},
        "checkpoints": [one["step"] for one in _items(http, f"{path}/checkpoints")],
        "samples": [_hash(http, f"{path}/samples/{one['step']}/{one['index']}") for one in samples],
    }


def pack(data: Path, backup: Path, target: Path) -> None:
    """Without what is made again; the blobs, which are the same in both, once."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for folder, left_out in ((data, DERIVED), (backup, {BLOBS})):
            for file in sorted(folder.rglob("*")):
                name = file.relative_to(folder)
                if file.is_file() and not left_out.intersection(name.parts) and not file.name.startswith(READ_MODEL):
                    info = zipfile.ZipInfo(f"{folder.name}/{name}", ZIP_TIME)
                    packed.writestr(info, file.read_bytes(), zipfile.ZIP_DEFLATED)


def unpack(source: Path, target: Path) -> tuple[Path, Path]:
    """The data folder and its backup."""
    with zipfile.ZipFile(source) as packed:
        packed.extractall(target)
    data, backup = target / DATA, target / BACKUP
    shutil.copytree(data / BLOBS, backup / BLOBS)
    return data, backup


def main(arguments: Sequence[str]) -> None:
    target = Path(arguments[0])
    with tempfile.TemporaryDirectory() as name:
        stack, backup = LocalStack(Path(name) / DATA), Path(name) / BACKUP
        try:
            stack.start()
            workshop = Workshop(stack, Path(name) / "pictures")
            workshop.curate()
            workshop.bring_in()
            workshop.train()
            shown = show(stack.http())
            workshop.train_until_first_checkpoint(INTERRUPTED)
        finally:
            stack.stop()
        made = cli("backup", "create", backup, "--data", stack.data)
        assert made.returncode == 0, made.stderr
        pack(stack.data, backup, target)
    target.with_suffix(".json").write_bytes(msgspec.json.format(msgspec.json.encode(shown), indent=1) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
