import io

import pytest

from contracts.recipe import Recipe
from contracts.wire.system.pipe import PREFIX_BYTES, InvalidFrame
from trainer.engine_pipe import MAX_UPDATE_BYTES, REQUESTS, UPDATES
from trainer.messages import AdapterMetadata, Example, Saved, Stop, Train

REQUEST = Train(
    recipe=Recipe(),
    base_folder="base",
    examples=[Example(path="a.png", digest="0" * 64, caption="a", ordinal=0)],
    work_folder="work",
    cache_folder="cache",
    draft_folder="drafts",
    metadata=AdapterMetadata(adapter_name="a", job_id="j", dataset_name="d", dataset_version=1, base_name="b"),
)


def test_requests_arrive_unchanged_and_a_closed_pipe_gives_none() -> None:
    pipe = io.BytesIO(REQUESTS.encode(REQUEST) + REQUESTS.encode(Stop(save=True)))
    assert REQUESTS.read(pipe) == REQUEST
    assert REQUESTS.read(pipe) == Stop(save=True)
    assert REQUESTS.read(pipe) is None


def test_updates_arrive_unchanged() -> None:
    frame = UPDATES.encode(Saved(step=3, path="x"))
    assert UPDATES.body_length(frame[:PREFIX_BYTES]) == len(frame) - PREFIX_BYTES
    assert UPDATES.decode(frame[PREFIX_BYTES:]) == Saved(step=3, path="x")


@pytest.mark.parametrize("frame", [b"\0", b"\0\0\0\x05ab", b"\xff\xff\xff\xff", b"\0\0\0\x03abc"])
def test_an_invalid_request_is_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(InvalidFrame):
        REQUESTS.read(io.BytesIO(frame))


def test_an_oversized_update_is_not_sent() -> None:
    with pytest.raises(InvalidFrame, match="exceeds"):
        UPDATES.encode(Saved(step=1, path="x" * (MAX_UPDATE_BYTES + 1)))
