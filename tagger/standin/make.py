"""Makes the stand-in tagger's files: `python -m tagger.standin.make [FOLDER]`. Needs `onnx` (extra `demo-models`).

Nothing here is learnt or left to chance, so the files are the same each time, byte for byte. The graph, as a sum of
rules on pixels of 0 to 255: each pixel belongs, softly, to the colour nearest to it (`ANCHORS`); a colour's share of
the picture, or of its border, makes its tags; mean light, mean saturation and the evenness of the border make the rest.
"""

import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tagger.standin import STAND_IN
from tagger.wd.manifest import MANIFEST, MODEL, TAGS, Manifest

SIZE = 64
BORDER = 6  # pixels of the edge that count as background
NEAR = 30.0  # standard deviation, in pixel values, of what still counts as a colour

ANCHORS: tuple[tuple[str, tuple[int, int, int]], ...] = (
    *(("red", (255, 0, 0)), ("red", (170, 20, 25)), ("red", (220, 60, 50))),
    *(("orange", (255, 140, 0)), ("yellow", (255, 255, 0)), ("yellow", (240, 210, 60))),
    *(("green", (0, 255, 0)), ("green", (0, 128, 0)), ("green", (70, 160, 80))),
    *(("aqua", (0, 255, 255)), ("aqua", (60, 190, 190))),
    *(("blue", (0, 0, 255)), ("blue", (0, 0, 140)), ("blue", (60, 110, 220))),
    *(("purple", (128, 0, 128)), ("purple", (130, 70, 190)), ("pink", (255, 105, 180)), ("pink", (255, 190, 205))),
    *(("brown", (110, 65, 30)), ("brown", (150, 100, 60))),
    *(
        ("white", (255, 255, 255)),
        ("grey", (185, 185, 185)),
        ("grey", (128, 128, 128)),
        ("grey", (75, 75, 75)),
        ("black", (0, 0, 0)),
    ),
)
COLOURS = tuple(dict.fromkeys(name for name, _ in ANCHORS))
RATINGS = {"general": 3.0, "sensitive": -3.0, "questionable": -4.5, "explicit": -6.0}
"""The logit of each: the stand-in finds every picture harmless."""
MOODS = ("dark", "bright", "colorful", "monochrome", "simple_background")
CHARACTERS = {
    "ember_(stand-in)": ("red", "orange", "yellow"),
    "brook_(stand-in)": ("green", "aqua", "blue"),
    "shade_(stand-in)": ("black", "grey"),
}
"""Each of these walks through every picture that is made of its colours."""

Table = NDArray[np.float32]


class Drawing:
    """An ONNX graph as it grows: each `op` gives the name of its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(
        self, kind: str, *inputs: str | Table | NDArray[np.int64], output: str = "", **attributes: int | list[int]
    ) -> str:
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        output = output or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def _constant(self, values: Table | NDArray[np.int64]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name


def build() -> onnx.ModelProto:
    """WD's interface: `input` float32 (n, 64, 64, 3) BGR 0 to 255, `output` float32 (n, tags) probabilities."""
    graph = Drawing()
    logits = graph.op("Concat", *_logits(graph), axis=1)
    graph.op("Sigmoid", logits, output="output")
    body = helper.make_graph(
        graph.nodes,
        "stand_in",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", len(rows())])],
        graph.constants,
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="loratory")
    onnx.checker.check_model(model)
    return model


def rows() -> list[tuple[str, int]]:
    """Tag and category of each output, in order."""
    general = [*COLOURS, *(f"{colour}_background" for colour in COLOURS), *MOODS]
    return [*((tag, 9) for tag in RATINGS), *((tag, 0) for tag in general), *((tag, 4) for tag in CHARACTERS)]


def write(folder: Path) -> None:
    lines = ["tag_id,name,category,count", *(f"{i},{tag},{category},0" for i, (tag, category) in enumerate(rows()))]
    manifest = msgspec.json.encode(Manifest(name="stand-in", input="input", output="output", size=SIZE))
    (folder / MODEL).write_bytes(build().SerializeToString(deterministic=True))
    (folder / TAGS).write_bytes(("\n".join(lines) + "\n").encode())
    (folder / MANIFEST).write_bytes(msgspec.json.format(manifest) + b"\n")


def _logits(graph: Drawing) -> list[str]:
    """In the order of `rows`."""
    members = _members(graph)
    whole, edge = _mean(graph, members), _border_mean(graph, members)
    ratings = graph.op("MatMul", whole, np.zeros((len(COLOURS), len(RATINGS)), np.float32))
    ratings = graph.op("Add", ratings, np.array(list(RATINGS.values()), np.float32))
    kinship = np.array([[colour in kin for kin in CHARACTERS.values()] for colour in COLOURS], np.float32)
    return [
        ratings,
        _above(graph, whole, 0.12, 30),
        _above(graph, edge, 0.5, 12),
        *_moods(graph),
        _above(graph, graph.op("MatMul", whole, kinship), 0.7, 25),
    ]


def _members(graph: Drawing) -> str:
    """(n, rows, columns, colours): how much each pixel is of each colour, a softmax over distances to the anchors."""
    anchors = np.array([rgb[::-1] for _, rgb in ANCHORS], np.float32)
    # -|x - a|^2 and 2xa - |a|^2 differ by |x|^2, the same for all anchors, which the softmax takes out.
    near = graph.op("MatMul", "input", (anchors.T / NEAR**2).astype(np.float32))
    near = graph.op("Sub", near, ((anchors**2).sum(1) / (2 * NEAR**2)).astype(np.float32))
    names = np.array([[name == colour for colour in COLOURS] for name, _ in ANCHORS], np.float32)
    return graph.op("MatMul", graph.op("Softmax", near, axis=3), names)


def _moods(graph: Drawing) -> list[str]:
    light = graph.op("MatMul", "input", np.array([[0.114], [0.587], [0.299]], np.float32) / np.float32(255))
    mean_light = _mean(graph, light)
    spread = graph.op("Sub", _extreme(graph, "ReduceMax"), _extreme(graph, "ReduceMin"))
    saturation = _mean(graph, graph.op("Div", spread, np.array(255, np.float32)))
    background = graph.op("Reshape", _border_mean(graph, light), np.array([0, 1, 1, 1]))
    roughness = _border_mean(graph, graph.op("Abs", graph.op("Sub", light, background)))
    return [
        _below(graph, mean_light, 0.3, 20),
        _above(graph, mean_light, 0.7, 20),
        _above(graph, saturation, 0.4, 15),
        _below(graph, saturation, 0.04, 100),
        _below(graph, roughness, 0.05, 80),
    ]


def _mean(graph: Drawing, values: str) -> str:
    """(n, rows, columns, k) to (n, k)."""
    return graph.op("ReduceMean", values, axes=[1, 2], keepdims=0)


def _border_mean(graph: Drawing, values: str) -> str:
    """The same over the border alone: what is left of the whole without its inside."""
    start, stop = np.array([BORDER, BORDER]), np.array([-BORDER, -BORDER])
    inside = _mean(graph, graph.op("Slice", values, start, stop, np.array([1, 2])))
    share = (SIZE - 2 * BORDER) ** 2 / SIZE**2
    outside = graph.op("Sub", _mean(graph, values), graph.op("Mul", inside, np.array(share, np.float32)))
    return graph.op("Div", outside, np.array(1 - share, np.float32))


def _extreme(graph: Drawing, kind: str) -> str:
    return graph.op(kind, "input", axes=[3], keepdims=1)


def _above(graph: Drawing, values: str, middle: float, slope: float) -> str:
    """A logit that is 0 at `middle` and rises."""
    distance = graph.op("Sub", values, np.array(middle, np.float32))
    return graph.op("Mul", distance, np.array(slope, np.float32))


def _below(graph: Drawing, values: str, middle: float, slope: float) -> str:
    return _above(graph, values, middle, -slope)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else STAND_IN)
