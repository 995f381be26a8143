import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from contracts.errors import Rejected, SetupError
from contracts.shipped_models import shipped_models
from tagger.models import available_models, model_folder
from tagger.wd.manifest import read_manifest
from tagger.wd.model import ForwardPass, OnnxTagger
from tests.limits import WAIT
from tests.tagger.model_folders import ROWS, channels_model, endless_model, with_weights_at, write_model_folder


def uniform_picture(blue: float, green: float, red: float, size: int = 16) -> np.ndarray:
    return np.full((size, size, 3), (blue, green, red), np.float32)


def test_a_folder_with_model_and_tag_list_is_a_wd_model(tmp_path: Path) -> None:
    model = OnnxTagger.load(write_model_folder(tmp_path / "my-wd", channels_model(size=24)), threads=1)
    assert (model.identity.name, model.size, model.manifest.input) == ("my-wd", 24, "input")
    assert model.identity.model == hashlib.sha256((tmp_path / "my-wd/model.onnx").read_bytes()).hexdigest()
    assert model.identity.tags == hashlib.sha256((tmp_path / "my-wd/selected_tags.csv").read_bytes()).hexdigest()


def test_outputs_are_read_by_category_not_by_position_and_filtered_by_the_floor(tmp_path: Path) -> None:
    model = OnnxTagger.load(write_model_folder(tmp_path, channels_model()), threads=1)
    (predictions,) = model.predict([uniform_picture(blue=204, green=10, red=12.75)])
    assert [(each.category, each.tag, each.probability) for each in predictions] == [
        ("rating", "safe", 0.9),
        ("rating", "risky", 0.01),
        ("general", "blue", 0.8),
        ("character", "miku", 0.5),
    ]


def test_a_batch_equals_single_predictions_and_a_fixed_batch_size_of_one_works(tmp_path: Path) -> None:
    dynamic = OnnxTagger.load(write_model_folder(tmp_path / "dynamic", channels_model()), threads=1)
    fixed = OnnxTagger.load(write_model_folder(tmp_path / "fixed", channels_model(batch=1)), threads=1)
    pictures = [uniform_picture(255 * i / 5, 100, 0) for i in range(5)]
    one_by_one = [dynamic.predict([picture])[0] for picture in pictures]
    assert dynamic.predict(pictures) == fixed.predict(pictures) == one_by_one
    assert dynamic.predict([]) == []


def test_logits_get_a_sigmoid_and_nchw_models_their_layout(tmp_path: Path) -> None:
    manifest = '{"layout": "NCHW", "colours": "RGB", "gives": "logits", "mean": [127.5, 127.5, 127.5]}'
    model = OnnxTagger.load(
        write_model_folder(tmp_path, channels_model(nchw=True, logits=True), manifest=manifest), threads=1
    )
    (predictions,) = model.predict([np.full((3, 16, 16), 2, np.float32)])
    assert {each.tag: each.probability for each in predictions}["blue"] == round(1 / (1 + np.exp(-2)), 4)


def test_undeclared_logits_are_detected_when_the_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="not probabilities"):
        OnnxTagger.load(write_model_folder(tmp_path, channels_model(logits=True)))


def test_an_unavailable_provider_is_reported(tmp_path: Path) -> None:
    model = OnnxTagger.load(write_model_folder(tmp_path, channels_model()), providers=["NoSuchExecutionProvider"])
    assert (model.identity.requested_provider, model.identity.provider) == (
        "NoSuchExecutionProvider",
        "CPUExecutionProvider",
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (channels_model(rank=3), "shape"),
        (channels_model(batch=4), "exactly 4 pictures"),
        (channels_model(nchw=True), "NHWC square"),
    ],
)
def test_an_input_that_is_not_a_batch_of_pictures_is_refused(
    tmp_path: Path, model: onnx.ModelProto, message: str
) -> None:
    with pytest.raises(SetupError, match=message):
        OnnxTagger.load(write_model_folder(tmp_path, model))


def test_a_dynamic_size_must_be_set_in_the_manifest(tmp_path: Path) -> None:
    model = channels_model()
    for axis in (1, 2):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "side"
    with pytest.raises(SetupError, match="the manifest must"):
        OnnxTagger.load(write_model_folder(tmp_path, model))
    assert OnnxTagger.load(write_model_folder(tmp_path, model, manifest='{"size": 32}')).size == 32


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:-1], "6 values a picture, but its tag list has 5"),
        ([*ROWS[:-1], ("red", 3)], "category '3'"),
        ([*ROWS[:-1], ("red,blue", 0)], "line 7: a tag cannot contain ','"),
        ([], "0 tags"),
    ],
)
def test_an_invalid_tag_list_is_refused(tmp_path: Path, rows: list[tuple[str, int]], message: str) -> None:
    with pytest.raises(SetupError, match=message):
        OnnxTagger.load(write_model_folder(tmp_path, channels_model(), rows=rows))


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
def test_an_invalid_manifest_is_refused_with_the_reason(tmp_path: Path, manifest: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        OnnxTagger.load(write_model_folder(tmp_path, channels_model(), manifest=manifest))


def test_a_missing_folder_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no model folder 'nowhere'"):
        OnnxTagger.load(tmp_path / "nowhere")
    with pytest.raises(SetupError, match=r"no file 'model\.onnx'"):
        OnnxTagger.load(tmp_path)


@pytest.mark.parametrize("data", [b"", b"hello, I am not a model", b"\x08", bytes(range(256)) * 9, b"\xff" * 99])
def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path, data: bytes) -> None:
    (write_model_folder(tmp_path, channels_model()) / "model.onnx").write_bytes(data)
    with pytest.raises(SetupError, match="is not"):
        OnnxTagger.load(tmp_path)


def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    path = write_model_folder(tmp_path, channels_model()) / "model.onnx"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SetupError):
        OnnxTagger.load(tmp_path)


def test_external_weights_are_part_of_the_identity(tmp_path: Path) -> None:
    path = write_model_folder(tmp_path, with_weights_at(channels_model(), "mix.bin"))
    weights = np.zeros((3, len(ROWS)), np.float32)
    (path / "mix.bin").write_bytes(weights.tobytes())
    first = OnnxTagger.load(path).identity.model
    (path / "mix.bin").write_bytes((weights + 1e-6).astype(np.float32).tobytes())
    assert OnnxTagger.load(path).identity.model != first


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "link.bin", "", ".", "sub/../../secret.bin"])
def test_weights_outside_the_folder_are_refused_before_the_model_is_opened(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(4 * 3 * len(ROWS)))
    path = write_model_folder(tmp_path / "model", with_weights_at(channels_model(), location))
    (path / "link.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(SetupError, match="outside its folder"):
        OnnxTagger.load(path)


def test_a_missing_weight_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"does not exist: 'mix\.bin'"):
        OnnxTagger.load(write_model_folder(tmp_path, with_weights_at(channels_model(), "mix.bin")))


def test_models_are_found_by_name_and_a_name_cannot_escape_the_folder(tmp_path: Path) -> None:
    write_model_folder(tmp_path / "models" / "mine", channels_model())
    write_model_folder(tmp_path / "secret", channels_model())
    (tmp_path / "models" / "empty").mkdir()
    assert list(available_models(tmp_path / "models")) == ["demo", "tiny-random", "mine"]
    shipped = shipped_models("taggers")
    assert {name: model_folder(name, None) for name in ("demo", "tiny-random")} == shipped
    assert read_manifest(shipped["demo"]).name == "demo"
    for name in ("../secret", "empty", "", str(tmp_path / "secret")):
        with pytest.raises(Rejected, match="there is no tagger model"):
            model_folder(name, tmp_path / "models")


def test_a_forward_pass_is_terminated_from_another_thread(tmp_path: Path) -> None:
    model = OnnxTagger.load(write_model_folder(tmp_path, endless_model()), threads=1)
    assert model.predict([uniform_picture(255, 255, 255)])
    run = ForwardPass()
    with ThreadPoolExecutor() as threads:
        predicting = threads.submit(model.predict, [uniform_picture(0, 0, 0)], run)
        assert not predicting.done()
        run.terminate()
        with pytest.raises(Exception, match="terminate"):
            predicting.result(WAIT)
