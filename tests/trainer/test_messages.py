import io

import pytest

from contracts.recipe import Recipe
from trainer import messages
from trainer.messages import BadFrame, Example, Facts, Saved, Stop, Train

ORDER = Train(
    recipe=Recipe(),
    base_folder="base",
    examples=[Example(path="a.png", digest="0" * 64, caption="a", ordinal=0)],
    work_folder="work",
    cache_folder="cache",
    facts=Facts(adapter_name="a", job_id="j", dataset_name="d", dataset_version=1, base_name="b"),
)


def test_orders_arrive_as_they_were_sent_and_the_end_is_none() -> None:
    pipe = io.BytesIO(messages.frame(ORDER) + messages.frame(Stop(save=True)))
    assert messages.next_order(pipe) == ORDER
    assert messages.next_order(pipe) == Stop(save=True)
    assert messages.next_order(pipe) is None


def test_updates_arrive_as_they_were_sent() -> None:
    frame = messages.frame(Saved(step=3, path="x"))
    assert messages.length(frame[: messages.PREFIX]) == len(frame) - messages.PREFIX
    assert messages.update_in(frame[messages.PREFIX :]) == Saved(step=3, path="x")


@pytest.mark.parametrize("torn", [b"\0", b"\0\0\0\x05ab", b"\xff\xff\xff\xff", b"\0\0\0\x03abc"])
def test_what_is_no_order_breaks_the_pipe(torn: bytes) -> None:
    with pytest.raises(BadFrame):
        messages.next_order(io.BytesIO(torn))


def test_an_update_too_large_is_not_sent() -> None:
    with pytest.raises(BadFrame, match="larger"):
        messages.frame(Saved(step=1, path="x" * (messages.UPDATE_LIMIT + 1)))
