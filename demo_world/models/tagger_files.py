"""Writes tagger models with WD's interface: an ONNX graph built node by node, its tag list and its manifest.

Needs `onnx` (extra `demo-models`).
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Values = NDArray[np.float32] | NDArray[np.int64]


class GraphBuilder:
    """Builds an ONNX graph; `add` returns the name of the node's output. The input is named `input`."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str | Values, output: str = "", **attributes: int | list[int]) -> str:
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        output = output or f"n{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def build(self, name: str, *, side: int, outputs: int) -> onnx.ModelProto:
        """`input`: float32 (batch, side, side, 3), BGR of 0 to 255; `output`: float32 (batch, outputs)."""
        body = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", side, side, 3])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", outputs])],
            self._constants,
        )
        opset = helper.make_opsetid("", 17)
        model = helper.make_model(body, opset_imports=[opset], ir_version=8, producer_name="loratory")
        onnx.checker.check_model(model)
        return model

    def _constant(self, values: Values) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values, name))
        return name


def write_model(path: Path, model: onnx.ModelProto) -> None:
    path.write_bytes(model.SerializeToString(deterministic=True))


def write_tags_and_manifest(folder: Path, name: str, labels: Sequence[tuple[str, int]], *, side: int) -> None:
    """Write the files beside `model.onnx`. `labels`: tag and category number of each output, in order."""
    lines = [f"{index},{tag},{category},0" for index, (tag, category) in enumerate(labels)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines]) + "\n")
    thresholds = {"general": 0.35, "character": 0.85}
    manifest = {"name": name, "input": "input", "output": "output", "size": side, "thresholds": thresholds}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
