"""A user's workflow over HTTP with the real catalog: import, tags, a job, its events."""

import hashlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import httpx
import msgspec
from PIL import Image
from websockets.sync.client import connect

from tests.gateway.test_http import assert_problem
from tests.limits import WAIT

P = "/api/v1"


def png_of(colour: str) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (64, 48), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_images_are_imported_and_their_tags_edited(address: str) -> None:
    with httpx.Client(base_url=address, timeout=60) as client:
        created = client.post(f"{P}/datasets", json={"name": "walk"}, headers={"Idempotency-Key": "walk"})
        assert created.status_code == 201, created.text
        again = client.post(f"{P}/datasets", json={"name": "walk"}, headers={"Idempotency-Key": "walk"})
        assert again.json()["id"] == created.json()["id"]
        other = client.post(f"{P}/datasets", json={"name": "other"}, headers={"Idempotency-Key": "walk"})
        assert_problem(other, 422, "idempotency-key-reused")

        files = [
            ("files", ("red.png", png_of("red"))),
            ("files", ("twin.png", png_of("red"))),
            ("files", ("text.png", b"no picture at all")),
            ("files", ("blue.png", png_of("blue"))),
        ]
        texts = {"captions": '{"red.png": "a red field"}', "tags": '{"blue.png": ["Blue Sky"]}'}
        key = {"Idempotency-Key": "walk-files"}
        imported = client.post(f"{P}/datasets/walk/images", files=files, data=texts, headers=key)
        assert imported.status_code == 201, imported.text
        outcomes = [item["outcome"] for item in imported.json()["items"]]
        assert outcomes == ["added", "existing", "refused", "added"]
        repeated = client.post(f"{P}/datasets/walk/images", files=files, data=texts, headers=key)
        assert repeated.json()["items"] == imported.json()["items"]

        min_seq = {"min_seq": imported.headers["loratory-seq"]}
        images = client.get(f"{P}/datasets/walk/images", params=min_seq).json()["items"]
        impossible = client.get(f"{P}/datasets/walk", params={"min_seq": 10**9})
        assert (impossible.status_code, impossible.json()["code"]) == (400, "invalid"), impossible.text
        assert [image["name"] for image in images] == ["red.png", "blue.png"]
        assert images[0]["caption"] == "a red field"
        listed = client.get(f"{P}/datasets/walk/files", params={"limit": 1, **min_seq}).json()
        assert (listed["total"], [file["path"] for file in listed["items"]]) == (2, ["red.png"])
        red = listed["items"][0]
        assert red["text"] == "a red field"
        content = client.get(red["href"]).content
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (red["digest"], red["size"])
        blue = f"/images/{images[1]['id']}"
        for name in ("file", "thumbnail"):
            picture = client.get(f"{P}{blue}/{name}")
            assert picture.headers["content-type"].startswith("image/")
            with Image.open(BytesIO(picture.content)) as shown:
                shown.verify()

        tags = client.get(f"/api{blue}/tags/")
        put = client.put(
            f"/api{blue}/tags", json={"tags": [*tags.json()["tags"], "sea"]}, headers={"If-Match": tags.headers["etag"]}
        )
        assert put.status_code == 200, put.text
        changed = client.get(f"{P}{blue}/tags", params={"min_seq": put.headers["loratory-seq"]})
        assert changed.json()["tags"][-1] == "sea"
        assert changed.headers["etag"] == f'"{put.headers["loratory-seq"]}"'

        about_blue = {"count": 1, "ids": [images[1]["id"]]}
        listed = client.get(f"{P}/events", params={"type": "dataset.tags_edited", **min_seq}).json()["items"]
        assert listed[-1]["images"] == about_blue
        with connect(f"{address.replace('http', 'ws')}/ws/progress?after=0", max_queue=None) as socket:
            frames: Iterator[Any] = iter(lambda: msgspec.json.decode(socket.recv(timeout=WAIT)), None)
            edited = [next(frame for frame in frames if frame["type"] == "dataset.tags_edited") for _ in listed]
        assert [frame["data"]["images"] for frame in edited] == [one["images"] for one in listed]


def test_a_job_waits_and_is_cancelled(address: str) -> None:
    with httpx.Client(base_url=address, timeout=60) as client:
        client.post(f"{P}/datasets", json={"name": "training"}).raise_for_status()
        files = [("files", ("green.png", png_of("green")))]
        client.post(f"{P}/datasets/training/images", files=files).raise_for_status()
        job = client.post(f"{P}/training/single", json={"dataset": "training", "changes": {"length.count": 20}})
        assert job.status_code == 202, job.text
        job_url = job.headers["location"]
        shown = client.get(job_url, params={"min_seq": job.headers["loratory-seq"]}).json()
        while shown["phase"] == "freezing":
            assert shown["live"]["waiting"]["code"] == "freezing"
            shown = client.get(job_url, params={"wait": 1}).json()
        assert shown["status"] == "pending"
        assert shown["live"]["waiting"]["code"] == "no-worker"
        assert (shown["current_step"], shown["total_steps"], shown["progress_percentage"]) == (0, None, 0.0)
        assert shown["completed_at"] is None
        assert_problem(client.post(f"{P}/jobs", json={"dataset": "training", "preset": "none"}), 422, "rejected")
        assert client.post(f"{job_url}/cancel").status_code == 202
        assert client.post(f"{job_url}/cancel").status_code == 200
        assert client.get(job_url, params={"wait": 10, "until": "terminal"}).json()["status"] == "cancelled"
        ended = client.get(f"{job_url}/status").json()
        assert ended["completed_at"] == client.get(job_url).json()["ended_at"]


def test_other_words_for_data_sets_and_presets_are_understood(address: str) -> None:
    with httpx.Client(base_url=address, timeout=60) as client:
        client.post(f"{P}/datasets", json={"name": "words"}).raise_for_status()
        files = [("files", ("green.png", png_of("green")))]
        client.post(f"{P}/datasets/words/images", files=files).raise_for_status()
        for route, status, body in (
            ("jobs", 201, {"mode": "single", "source_path": "words", "preset": "demo"}),
            ("jobs", 201, {"dataset_name": "words", "preset_name": "demo"}),
            ("training/single", 202, {"source_path": "words", "preset_name": "demo"}),
            ("training/quick-start", 202, {"source_path": "words", "preset": "demo"}),
            ("presets/generate-config", 200, {"dataset_name": "words", "preset_name": "demo"}),
        ):
            answer = client.post(f"{P}/{route}", json=body)
            assert answer.status_code == status, answer.text
            if status != 200:
                job = client.get(answer.headers["location"], params={"min_seq": answer.headers["loratory-seq"]}).json()
                assert (job["dataset"], job["preset"]) == ("words", "demo")
                assert job["mode"] == ("quick-start" if route == "training/quick-start" else "single")
                client.post(f"{answer.headers['location']}/cancel").raise_for_status()
        for wrong, field in (
            ({"preset": "demo"}, "/dataset"),
            ({"dataset": "words", "dataset_name": "words"}, "/dataset"),
            ({"dataset": "words", "preset": "demo", "preset_name": "demo"}, "/preset_name"),
        ):
            refused = client.post(f"{P}/jobs", json=wrong)
            assert_problem(refused, 400, "invalid")
            assert [one["pointer"] for one in refused.json()["errors"]] == [field]
        path = client.post(f"{P}/jobs", json={"source_path": "/path/to/dataset"})
        assert assert_problem(path, 422, "rejected")["reason"] == "no-import-root"
        assert "/path/to" not in path.text


def test_lines_and_sockets_have_the_same_events(address: str) -> None:
    with httpx.Client(base_url=address, timeout=60) as client:
        client.post(f"{P}/datasets", json={"name": "last"}).raise_for_status()
        lines = client.get(f"{P}/events", headers={"Accept": "application/x-ndjson"}).text.splitlines()
        events = [msgspec.json.decode(line) for line in lines]
        with connect(f"{address.replace('http', 'ws')}/ws/progress?after=0", max_queue=None) as socket:
            frames: list[Any] = []
            while len(frames) < len(events):
                frame = msgspec.json.decode(socket.recv(timeout=WAIT))
                if frame["seq"]:
                    frames.append(frame)
        assert [frame["seq"] for frame in frames] == [one["cursor"] for one in events]
        assert [frame["type"] for frame in frames] == [one["type"] for one in events]
        assert events[-1]["data"]["name"] == "last"
