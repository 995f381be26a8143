import io

import pytest

from contracts.recipe import Recipe
from trainer import messages
from trainer.messages import AdapterMetadata, Example, InvalidFrame, Saved, Stop, Train

REQUEST = Train(
    recipe=Recipe(),
    base_folder="base",
    examples=[Example(path="a.png", digest="0" * 64, caption="a", ordinal=0)],
    work_folder="work",
    cache_folder="cache",
    metadata=AdapterMetadata(adapter_name="a", job_id="j", dataset_name="d", dataset_version=1, base_name="b"),
)


def test_requests_arrive_unchanged_and_a_closed_pipe_gives_none() -> None:
    pipe = io.BytesIO(messages.encode_frame(REQUEST) + messages.encode_frame(Stop(save=True)))
    assert messages.read_request(pipe) == REQUEST
    assert messages.read_request(pipe) == Stop(save=True)
    assert messages.read_request(pipe) is None


def test_updates_arrive_unchanged() -> None:
    frame = messages.encode_frame(Saved(step=3, path="x"))
    assert messages.body_length(frame[: messages.PREFIX_BYTES]) == len(frame) - messages.PREFIX_BYTES
    assert messages.decode_update(frame[messages.PREFIX_BYTES :]) == Saved(step=3, path="x")


@pytest.mark.parametrize("frame", [b"\0", b"\0\0\0\x05ab", b"\xff\xff\xff\xff", b"\0\0\0\x03abc"])
def test_an_invalid_request_is_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(InvalidFrame):
        messages.read_request(io.BytesIO(frame))


def test_an_oversized_update_is_not_sent() -> None:
    with pytest.raises(InvalidFrame, match="exceeds"):
        messages.encode_frame(Saved(step=1, path="x" * (messages.MAX_UPDATE_BYTES + 1)))
