from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from contracts.recipe import Data
from tests.trainer.builders import Workbench, last, only
from trainer.engine.data import BadPicture, EncodingCache, augment_caption, load_pixels, read_size
from trainer.messages import Example, Finished, Loading, Planned


def example(path: Path) -> Example:
    return Example(path=str(path), digest="x", caption="", ordinal=7)


def test_an_encoding_is_computed_once_even_across_processes(tmp_path: Path) -> None:
    calls = []

    def encode() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"a": torch.arange(3.0)}

    for cache in (EncodingCache(tmp_path), EncodingCache(tmp_path)):
        for _ in range(2):
            assert cache.load_or_encode("texts", "encoder", "caption", encode=encode)["a"].tolist() == [0, 1, 2]
    assert len(calls) == 1


@pytest.mark.parametrize(
    "corrupt",
    [lambda it: it[:0], lambda it: b"garbage" + it, lambda it: it[:-1], lambda it: it[:-1] + b"x"],
    ids=["empty", "garbage", "truncated", "one byte"],
)
def test_a_damaged_cache_file_is_recomputed(tmp_path: Path, corrupt: Callable[[bytes], bytes]) -> None:
    def encode() -> dict[str, torch.Tensor]:
        return {"a": torch.ones(2)}

    EncodingCache(tmp_path).load_or_encode("latents", "x", encode=encode)
    (file,) = tmp_path.rglob("*.safetensors")
    content = file.read_bytes()
    file.write_bytes(corrupt(content))
    assert EncodingCache(tmp_path).load_or_encode("latents", "x", encode=encode)["a"].tolist() == [1, 1]
    assert file.read_bytes() == content


def test_the_memory_cache_stays_within_its_limit(tmp_path: Path) -> None:
    cache = EncodingCache(tmp_path, memory=3 * 400)
    encoded: list[str] = []

    def encode(name: str) -> dict[str, torch.Tensor]:
        encoded.append(name)
        return {"a": torch.zeros(100)}

    for name in "abcda":
        cache.encode_in_memory("texts", name, encode=partial(encode, name))
    assert encoded == list("abcda")
    cache.encode_in_memory("texts", "d", encode=lambda: encode("d"))
    assert encoded == list("abcda")


@pytest.mark.slow
def test_a_second_run_on_the_same_pictures_encodes_nothing_and_gives_the_same_weights(
    bench: Workbench, tmp_path: Path
) -> None:
    bench.cache = tmp_path / "fresh"
    first = bench.run(bench.request())
    times = {file: file.stat().st_mtime_ns for file in bench.cache.rglob("*.safetensors")}
    assert len(times) == 2 * len(bench.examples)
    second = bench.run(bench.request())
    assert {file: file.stat().st_mtime_ns for file in bench.cache.rglob("*.safetensors")} == times
    assert last(first, Finished).kohya.tensors == last(second, Finished).kohya.tensors
    assert last(second, Planned).warm
    assert [loading.done for loading in only(first, Loading) if loading.what == "latents"] == [1, 2, 3, 4, 5]


def test_caption_dropout_and_tag_shuffling_follow_the_recipe() -> None:
    data = Data(shuffle_tags=True, keep_tags=2, caption_dropout=0.25)
    captions = [augment_caption("a, b, c, d,, e", data, 0, step, 0) for step in range(2000)]
    assert 0.2 < captions.count("") / len(captions) < 0.3
    shown = {caption for caption in captions if caption}
    assert all(caption.startswith("a, b, ") and sorted(caption.split(", ")) == list("abcde") for caption in shown)
    assert len(shown) == 6
    assert augment_caption("a, b", Data(), 0, 1, 0) == "a, b"
    assert captions == [augment_caption("a, b, c, d,, e", data, 0, step, 0) for step in range(2000)]


def test_a_picture_covers_its_bucket_and_is_center_cropped(tmp_path: Path) -> None:
    picture = Image.new("RGB", (300, 100), (255, 0, 0))
    picture.paste((0, 0, 255), (100, 0, 200, 100))
    picture.save(tmp_path / "a.png")
    values = load_pixels(example(tmp_path / "a.png"), (64, 64))
    assert values.shape == (3, 64, 64)
    assert values[:, 32, 32].tolist() == [-1, -1, 1]
    assert values.dtype == torch.float32
    assert read_size(example(tmp_path / "a.png")) == (300, 100)


def test_an_extreme_aspect_ratio_needs_no_extra_memory(tmp_path: Path) -> None:
    Image.new("RGB", (30_000, 1), (255, 255, 255)).save(tmp_path / "a.png")
    assert load_pixels(example(tmp_path / "a.png"), (1024, 256)).shape == (3, 256, 1024)


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert set(load_pixels(example(tmp_path / "a.png"), (64, 64)).flatten().tolist()) == {1}


def test_an_unreadable_picture_is_named_by_its_ordinal(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.effect_noise((100, 100), 50).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:4000])
    for name, read in (
        ("text.png", read_size),
        ("none.png", read_size),
        ("cut.png", lambda it: load_pixels(it, (64, 64))),
    ):
        with pytest.raises(BadPicture, match="picture 7") as refused:
            read(example(tmp_path / name))
        assert str(tmp_path) not in str(refused.value)
