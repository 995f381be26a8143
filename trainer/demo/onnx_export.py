"""Exports the demo tagger as an ONNX file with WD's interface. Needs `onnx` (extra `demo-models`)."""

from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from trainer.demo.tagger_network import TaggerNetwork
from trainer.demo.world.drawing import SIDE


class _ChainBuilder:
    """Builds a chain of ONNX operations; each takes `last_output`, the output of the one before."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.last_output = "input"

    def add(self, kind: str, *constants: Tensor, output: str = "", **attributes: int | list[int]) -> None:
        input_names = [self._add_constant(each.detach().cpu().numpy()) for each in constants]
        output = output or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last_output, *input_names], [output], **attributes))
        self.last_output = output

    def _add_constant(self, values: NDArray[np.float32]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def export_onnx(network: TaggerNetwork, path: Path) -> None:
    """`input`: float32 (batch, 64, 64, 3), BGR of 0 to 255; `output`: float32 (batch, names), probabilities."""
    graph, names = _ChainBuilder(), network.output.out_features
    graph.add("Transpose", perm=[0, 3, 1, 2])
    graph.add("Div", torch.tensor(127.5))
    graph.add("Sub", torch.tensor(1.0))
    for block in network.blocks:
        graph.add("Conv", *block.fold_norm(), pads=[1] * 4, strides=[block.stride] * 2)
        graph.add("Relu")
    graph.add("Flatten", axis=1)
    graph.add("Gemm", network.hidden.weight, network.hidden.bias, transB=1)
    graph.add("Relu")
    graph.add("Gemm", network.output.weight, network.output.bias, transB=1)
    graph.add("Sigmoid", output="output")
    body = helper.make_graph(
        graph.nodes,
        "demo_tagger",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", names])],
        graph.constants,
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="loratory")
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
