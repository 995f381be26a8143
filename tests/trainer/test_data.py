from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from contracts.recipe import Data
from tests.trainer.builders import Workbench, last, only
from trainer.engine.data import BadPicture, Cache, pixels, seen, size_of
from trainer.messages import Example, Finished, Loading, Planned


def example(path: Path) -> Example:
    return Example(path=str(path), digest="x", caption="", ordinal=7)


def test_a_cached_encoding_is_made_once_even_by_another_process(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, torch.Tensor]:
        made.append(1)
        return {"a": torch.arange(3.0)}

    for cache in (Cache(tmp_path), Cache(tmp_path)):
        for _ in range(2):
            assert cache.stored("texts", "encoder", "caption", make=make)["a"].tolist() == [0, 1, 2]
    assert len(made) == 1


@pytest.mark.parametrize(
    "spoil",
    [lambda it: it[:0], lambda it: b"garbage" + it, lambda it: it[:-1], lambda it: it[:-1] + b"x"],
    ids=["empty", "garbage", "torn", "one byte"],
)
def test_a_spoiled_cache_file_is_made_again(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    def make() -> dict[str, torch.Tensor]:
        return {"a": torch.ones(2)}

    Cache(tmp_path).stored("latents", "x", make=make)
    (file,) = tmp_path.rglob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(spoil(whole))
    assert Cache(tmp_path).stored("latents", "x", make=make)["a"].tolist() == [1, 1]
    assert file.read_bytes() == whole


def test_memory_keeps_to_its_bound(tmp_path: Path) -> None:
    cache = Cache(tmp_path, memory=3 * 400)
    made: list[str] = []

    def encoded(name: str) -> dict[str, torch.Tensor]:
        made.append(name)
        return {"a": torch.zeros(100)}

    for name in "abcda":
        cache.made("texts", name, make=lambda name=name: encoded(name))
    assert made == list("abcda")
    cache.made("texts", "d", make=lambda: encoded("d"))
    assert made == list("abcda")


def test_another_run_on_the_same_pictures_encodes_nothing_and_learns_the_same(bench: Workbench, tmp_path: Path) -> None:
    bench.cache = tmp_path / "fresh"
    first = bench.run(bench.order())
    times = {file: file.stat().st_mtime_ns for file in bench.cache.rglob("*.safetensors")}
    assert len(times) == 2 * len(bench.examples)
    second = bench.run(bench.order())
    assert {file: file.stat().st_mtime_ns for file in bench.cache.rglob("*.safetensors")} == times
    assert last(first, Finished).kohya.tensors == last(second, Finished).kohya.tensors
    assert last(second, Planned).warm
    assert [told.done for told in only(first, Loading) if told.what == "latents"] == [1, 2, 3, 4, 5]


def test_captions_are_dropped_and_shuffled_as_the_recipe_says() -> None:
    data = Data(shuffle_tags=True, keep_tags=2, caption_dropout=0.25)
    captions = [seen("a, b, c, d,, e", data, 0, step, 0) for step in range(2000)]
    assert 0.2 < captions.count("") / len(captions) < 0.3
    shown = {caption for caption in captions if caption}
    assert all(caption.startswith("a, b, ") and sorted(caption.split(", ")) == list("abcde") for caption in shown)
    assert len(shown) == 6
    assert seen("a, b", Data(), 0, 1, 0) == "a, b"
    assert captions == [seen("a, b, c, d,, e", data, 0, step, 0) for step in range(2000)]


def test_a_picture_covers_its_bucket_and_is_cut_around_the_middle(tmp_path: Path) -> None:
    picture = Image.new("RGB", (300, 100), (255, 0, 0))
    picture.paste((0, 0, 255), (100, 0, 200, 100))
    picture.save(tmp_path / "a.png")
    values = pixels(example(tmp_path / "a.png"), (64, 64))
    assert values.shape == (3, 64, 64)
    assert values[:, 32, 32].tolist() == [-1, -1, 1]
    assert values.dtype == torch.float32
    assert size_of(example(tmp_path / "a.png")) == (300, 100)


def test_a_picture_of_any_shape_takes_no_more_memory_than_itself(tmp_path: Path) -> None:
    Image.new("RGB", (30_000, 1), (255, 255, 255)).save(tmp_path / "a.png")
    assert pixels(example(tmp_path / "a.png"), (1024, 256)).shape == (3, 256, 1024)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert pixels(example(tmp_path / "a.png"), (64, 64)).unique().tolist() == [1]


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.effect_noise((100, 100), 50).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:4000])
    for name, read in (("text.png", size_of), ("none.png", size_of), ("cut.png", lambda it: pixels(it, (64, 64)))):
        with pytest.raises(BadPicture, match="picture 7") as refused:
            read(example(tmp_path / name))
        assert str(tmp_path) not in str(refused.value)
