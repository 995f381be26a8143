"""Exports the demo tagger as an ONNX file with WD's interface. Needs `onnx` (extra `demo-models`)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from demo_world.drawing import SIDE
from demo_world.models.tagger_files import GraphBuilder, write_model
from demo_world.models.tagger_network import TaggerNetwork


def export_onnx(network: TaggerNetwork, path: Path) -> None:
    """Write the network as a model with pixels in and probabilities out."""
    graph = GraphBuilder()
    features = graph.add("Transpose", "input", perm=[0, 3, 1, 2])
    features = graph.add("Div", features, np.array(127.5, np.float32))
    features = graph.add("Sub", features, np.array(1.0, np.float32))
    for block in network.blocks:
        weight, bias = block.fold_norm()
        features = graph.add("Conv", features, _values(weight), _values(bias), pads=[1] * 4, strides=[block.stride] * 2)
        features = graph.add("Relu", features)
    features = graph.add("Flatten", features, axis=1)
    features = graph.add("Gemm", features, _values(network.hidden.weight), _values(network.hidden.bias), transB=1)
    features = graph.add("Relu", features)
    logits = graph.add("Gemm", features, _values(network.output.weight), _values(network.output.bias), transB=1)
    graph.add("Sigmoid", logits, output="output")
    write_model(path, graph.build("demo_tagger", side=SIDE, outputs=network.output.out_features))


def _values(tensor: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = tensor.detach().cpu().numpy()
    return values
