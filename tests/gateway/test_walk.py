"""The way of a user over HTTP, against the real catalog: pictures in, tags, a version, a job, its story."""

from io import BytesIO

import httpx
import msgspec
from PIL import Image
from websockets.sync.client import connect

from tests.gateway.test_http import assert_problem
from tests.limits import WAIT

P = "/api/v1"


def drawn(colour: str) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (64, 48), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_pictures_come_in_and_their_tags_are_edited(address: str) -> None:
    with httpx.Client(base_url=address, timeout=60) as client:
        made = client.post(f"{P}/datasets", json={"name": "walk"}, headers={"Idempotency-Key": "walk"})
        assert made.status_code == 201, made.text
        again = client.post(f"{P}/datasets", json={"name": "walk"}, headers={"Idempotency-Key": "walk"})
        assert again.json()["id"] == made.json()["id"]
        other = client.post(f"{P}/datasets", json={"name": "other"}, headers={"Idempotency-Key": "walk"})
        assert_problem(other, 422, "idempotency-key-reused")

        files = [
            ("files", ("red.png", drawn("red"))),
            ("files", ("twin.png", drawn("red"))),
            ("files", ("text.png", b"no picture at all")),
            ("files", ("blue.png", drawn("blue"))),
        ]
        words = {"captions": '{"red.png": "a red field"}', "tags": '{"blue.png": ["Blue Sky"]}'}
        key = {"Idempotency-Key": "walk-files"}
        imported = client.post(f"{P}/datasets/walk/images", files=files, data=words, headers=key)
        assert imported.status_code == 201, imported.text
        outcomes = [item["outcome"] for item in imported.json()["items"]]
        assert outcomes == ["added", "existing", "refused", "added"]
        repeated = client.post(f"{P}/datasets/walk/images", files=files, data=words, headers=key)
        assert repeated.json()["items"] == imported.json()["items"]

        seen = {"min_seq": imported.headers["loratory-seq"]}
        images = client.get(f"{P}/datasets/walk/images", params=seen).json()["items"]
        assert [image["name"] for image in images] == ["red.png", "blue.png"]
        assert images[0]["caption"] == "a red field"
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


def test_a_job_waits_is_cancelled_and_has_a_story(address: str) -> None:
    with httpx.Client(base_url=address, timeout=60) as client:
        client.post(f"{P}/datasets", json={"name": "story"}).raise_for_status()
        files = [("files", ("green.png", drawn("green")))]
        client.post(f"{P}/datasets/story/images", files=files).raise_for_status()
        job = client.post(f"{P}/training/single", json={"dataset": "story", "changes": {"length.count": 20}})
        assert job.status_code == 202, job.text
        where = job.headers["location"]
        shown = client.get(where, params={"min_seq": job.headers["loratory-seq"]}).json()
        assert shown["status"] == "pending"
        assert shown["live"]["waiting"]["code"] == "no-worker"
        assert_problem(client.post(f"{P}/jobs", json={"dataset": "story", "preset": "none"}), 422, "rejected")
        assert client.post(f"{where}/cancel").status_code == 202
        assert client.post(f"{where}/cancel").status_code == 200
        assert client.get(where, params={"wait": 10, "until": "terminal"}).json()["status"] == "cancelled"


def test_lines_and_sockets_tell_the_same_story(address: str) -> None:
    with httpx.Client(base_url=address, timeout=60) as client:
        client.post(f"{P}/datasets", json={"name": "told"}).raise_for_status()
        lines = client.get(f"{P}/events", headers={"Accept": "application/x-ndjson"}).text.splitlines()
        story = [msgspec.json.decode(line) for line in lines]
        with connect(f"{address.replace('http', 'ws')}/ws/progress?after=0", max_queue=None) as socket:
            told = []
            while len(told) < len(story):
                frame = msgspec.json.decode(socket.recv(timeout=WAIT))
                if frame["seq"]:
                    told.append(frame)
        assert [frame["seq"] for frame in told] == [one["cursor"] for one in story]
        assert [frame["type"] for frame in told] == [one["type"] for one in story]
        assert story[-1]["data"]["name"] == "told"
