import hashlib
from pathlib import Path

import numpy as np
import pytest

from contracts.errors import Rejected, SetupError
from tagger.demo import DEMO
from tagger.models import folder_of, known
from tagger.standin import STAND_IN
from tagger.wd.manifest import read_manifest
from tagger.wd.model import Model
from tests.tagger.folders import ROWS, channels_model, folder, with_weights_at


def filled(blue: float, green: float, red: float, size: int = 16) -> np.ndarray:
    return np.full((size, size, 3), (blue, green, red), np.float32)


def test_two_files_in_a_folder_are_a_wd_model(tmp_path: Path) -> None:
    model = Model.load(folder(tmp_path / "my-wd", channels_model(size=24)), threads=1)
    assert (model.identity.name, model.size, model.manifest.input) == ("my-wd", 24, "input")
    assert model.identity.model == hashlib.sha256((tmp_path / "my-wd/model.onnx").read_bytes()).hexdigest()
    assert model.identity.tags == hashlib.sha256((tmp_path / "my-wd/selected_tags.csv").read_bytes()).hexdigest()


def test_tags_are_told_by_category_not_by_place_and_only_those_above_the_floor_stay(tmp_path: Path) -> None:
    model = Model.load(folder(tmp_path, channels_model()), threads=1)
    (guesses,) = model.predict([filled(blue=204, green=10, red=12.75)])
    assert [(each.category, each.tag, each.probability) for each in guesses] == [
        ("rating", "safe", 0.9),
        ("rating", "risky", 0.01),
        ("general", "blue", 0.8),
        ("character", "miku", 0.5),
    ]


def test_a_batch_gives_what_one_by_one_gives_and_a_fixed_batch_of_one_works(tmp_path: Path) -> None:
    free = Model.load(folder(tmp_path / "free", channels_model()), threads=1)
    fixed = Model.load(folder(tmp_path / "fixed", channels_model(batch=1)), threads=1)
    pictures = [filled(255 * i / 5, 100, 0) for i in range(5)]
    one_by_one = [free.predict([picture])[0] for picture in pictures]
    assert free.predict(pictures) == fixed.predict(pictures) == one_by_one
    assert free.predict([]) == []


def test_logits_get_their_sigmoid_and_nchw_its_order(tmp_path: Path) -> None:
    manifest = '{"layout": "NCHW", "colours": "RGB", "gives": "logits", "mean": [127.5, 127.5, 127.5]}'
    model = Model.load(folder(tmp_path, channels_model(nchw=True, logits=True), manifest=manifest), threads=1)
    (guesses,) = model.predict([np.full((3, 16, 16), 2, np.float32)])
    assert {each.tag: each.probability for each in guesses}["blue"] == round(1 / (1 + np.exp(-2)), 4)


def test_logits_taken_for_probabilities_are_noticed_when_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no probabilities"):
        Model.load(folder(tmp_path, channels_model(logits=True)))


def test_a_provider_that_is_not_there_is_reported(tmp_path: Path) -> None:
    model = Model.load(folder(tmp_path, channels_model()), providers=["NoSuchExecutionProvider"])
    assert (model.identity.asked, model.identity.provider) == ("NoSuchExecutionProvider", "CPUExecutionProvider")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (channels_model(rank=3), "shape"),
        (channels_model(batch=4), "just 4 pictures"),
        (channels_model(nchw=True), "NHWC square"),
    ],
)
def test_an_input_that_is_no_batch_of_pictures_is_refused(tmp_path: Path, model, message: str) -> None:  # type: ignore[no-untyped-def]  # onnx has no types here
    with pytest.raises(SetupError, match=message):
        Model.load(folder(tmp_path, model))


def test_a_size_the_file_leaves_open_must_be_in_the_manifest(tmp_path: Path) -> None:
    model = channels_model()
    for axis in (1, 2):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "side"
    with pytest.raises(SetupError, match="the manifest must"):
        Model.load(folder(tmp_path, model))
    assert Model.load(folder(tmp_path, model, manifest='{"size": 32}')).size == 32


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:-1], "6 values a picture, but its tag list has 5"),
        ([*ROWS[:-1], ("red", 3)], "category '3'"),
        ([*ROWS[:-1], ("red,blue", 0)], "line 7: a tag cannot contain ','"),
        ([], "0 tags"),
    ],
)
def test_a_tag_list_that_does_not_fit_is_refused(tmp_path: Path, rows: list[tuple[str, int]], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        Model.load(folder(tmp_path, channels_model(), rows=rows))


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ('{"sise": 64}', "sise"),
        ('{"model": "../model.onnx"}', "model"),
        ('{"model": "other.onnx"}', "no file 'other.onnx'"),
        ('{"size": 64}', "of size 64"),
        ('{"input": "x"}', "not 'x'"),
        ('{"std": [1, 0, 1]}', "cannot be 0"),
        ('{"preprocessing": "wd-9"}', "preprocessing"),
        ("{", "not valid"),
    ],
)
def test_a_wrong_manifest_says_what_is_wrong(tmp_path: Path, manifest: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        Model.load(folder(tmp_path, channels_model(), manifest=manifest))


def test_a_folder_or_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no model folder 'nowhere'"):
        Model.load(tmp_path / "nowhere")
    with pytest.raises(SetupError, match=r"no file 'model\.onnx'"):
        Model.load(tmp_path)


@pytest.mark.parametrize("data", [b"", b"hello, I am no model", b"\x08", bytes(range(256)) * 9, b"\xff" * 99])
def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, data: bytes) -> None:
    (folder(tmp_path, channels_model()) / "model.onnx").write_bytes(data)
    with pytest.raises(SetupError, match="is not"):
        Model.load(tmp_path)


def test_half_a_model_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, channels_model()) / "model.onnx"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SetupError):
        Model.load(tmp_path)


def test_weights_in_a_file_of_the_folder_count_in_the_identity(tmp_path: Path) -> None:
    path = folder(tmp_path, with_weights_at(channels_model(), "mix.bin"))
    weights = np.zeros((3, len(ROWS)), np.float32)
    (path / "mix.bin").write_bytes(weights.tobytes())
    first = Model.load(path).identity.model
    (path / "mix.bin").write_bytes((weights + 1e-6).astype(np.float32).tobytes())
    assert Model.load(path).identity.model != first


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin", "", ".", "sub/../../secret.bin"])
def test_weights_outside_the_folder_are_refused_before_the_model_is_opened(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(4 * 3 * len(ROWS)))
    path = folder(tmp_path / "model", with_weights_at(channels_model(), location))
    (path / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(SetupError, match="outside its folder"):
        Model.load(path)


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"not there: 'mix\.bin'"):
        Model.load(folder(tmp_path, with_weights_at(channels_model(), "mix.bin")))


def test_models_are_found_by_name_and_no_name_leaves_the_folder(tmp_path: Path) -> None:
    folder(tmp_path / "models" / "mine", channels_model())
    folder(tmp_path / "secret", channels_model())
    (tmp_path / "models" / "empty").mkdir()
    assert list(known(tmp_path / "models")) == ["demo", "stand-in", "mine"]
    assert (folder_of("demo", None), folder_of("stand-in", None)) == (DEMO, STAND_IN)
    assert read_manifest(DEMO).name == "demo"
    for name in ("../secret", "empty", "", str(tmp_path / "secret")):
        with pytest.raises(Rejected, match="there is no tagger model"):
            folder_of(name, tmp_path / "models")
