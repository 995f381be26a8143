"""Model folders for tests: small ONNX models whose outputs reveal their input."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROWS = [("miku", 4), ("safe", 9), ("blue", 0), ("green", 0), ("risky", 9), ("red", 0)]
"""Deliberately not in WD's category order. Outputs: 0.5, 0.9, first, second and third channel's mean / 255, 0.01."""


def channels_model(
    *, batch: int | str = "n", size: int = 16, nchw: bool = False, logits: bool = False, rank: int = 4
) -> onnx.ModelProto:
    """A model that returns the mean of each channel as blue, green, red; `logits` omits the scaling to 0…1."""
    shape: list[int | str] = [batch, 3, size, size] if nchw else [batch, size, size, 3]
    mix, base = np.zeros((3, len(ROWS)), np.float32), np.array([0.5, 0.9, 0, 0, 0.01, 0], np.float32)
    for channel, output in enumerate((2, 3, 5)):
        mix[channel, output] = 1.0 if logits else 1 / 255
    body = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["input"], ["mean"], axes=[2, 3] if nchw else [1, 2], keepdims=0),
            helper.make_node("MatMul", ["mean", "mix"], ["mixed"]),
            helper.make_node("Add", ["mixed", "base"], ["output"]),
        ],
        "channels",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape[:rank])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, len(ROWS)])],
        [numpy_helper.from_array(mix, "mix"), numpy_helper.from_array(base, "base")],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def with_weights_at(model: onnx.ModelProto, location: str) -> onnx.ModelProto:
    """The same model with the tensor `mix` stored in an external file."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return model


def write_model_folder(
    path: Path, model: onnx.ModelProto, *, rows: list[tuple[str, int]] = ROWS, manifest: str | None = None
) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.onnx").write_bytes(model.SerializeToString())
    lines = ["tag_id,name,category,count", *(f'{i},"{tag}",{category},1' for i, (tag, category) in enumerate(rows))]
    (path / "selected_tags.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if manifest is not None:
        (path / "manifest.json").write_text(manifest, encoding="utf-8")
    return path


def endless_model(*, size: int = 16, iterations_of_white: int = 0) -> onnx.ModelProto:
    """Like `channels_model`, but a picture that is not white takes years: hundreds of billions of loop iterations.

    A white one takes that many, also when the model is loaded, which tries it on one.
    """
    model = channels_model(size=size)
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["goes_on"]), helper.make_node("Identity", ["before"], ["after"])],
        "body",
        [
            helper.make_tensor_value_info("iteration", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    mean, mixed, added = model.graph.node
    mixed.input[0] = "looped"
    model.graph.ClearField("node")
    model.graph.node.extend(
        [
            helper.make_node("Sub", ["white", "input"], ["darkness"]),
            helper.make_node("ReduceMax", ["darkness"], ["darkest"], keepdims=0),
            helper.make_node("Mul", ["darkest", "billion"], ["iterations"]),
            helper.make_node("Add", ["iterations", "iterations_of_white"], ["all_iterations"]),
            helper.make_node("Cast", ["all_iterations"], ["trips"], to=TensorProto.INT64),
            mean,
            helper.make_node("Loop", ["trips", "always", "mean"], ["looped"], body=body),
            mixed,
            added,
        ]
    )
    constants = {
        "white": np.float32(255),
        "billion": np.float32(1e9),
        "iterations_of_white": np.float32(iterations_of_white),
        "always": np.bool_(True),
    }
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model
