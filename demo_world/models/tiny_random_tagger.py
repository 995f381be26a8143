"""Generates the tiny-random tagger: `python -m demo_world.models.tiny_random_tagger [FOLDER]`, by default in place.

Nothing is trained or random, so the files are reproducible byte for byte. The graph applies fixed rules to pixels of
0 to 255: each pixel is softly assigned to the nearest colour (`ANCHORS`); a colour's share of the picture or of its
border gives the colour tags; mean brightness, mean saturation and the evenness of the border give the others.
"""

import sys
from pathlib import Path

import numpy as np

from demo_world.models.tagger_files import GraphBuilder, write_model, write_tags_and_manifest

_SHIPPED = Path(__file__).parents[1] / "taggers" / "tiny-random"

SIZE = 64
BORDER = 6  # width in pixels of the edge that counts as background
COLOUR_SIGMA = 30.0  # standard deviation, in pixel values, of the soft assignment to a colour

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
"""The constant logit of each rating: every picture is rated `general`."""
PROPERTIES = ("dark", "bright", "colorful", "monochrome", "simple_background")
CHARACTERS = {
    "ember_(tiny-random)": ("red", "orange", "yellow"),
    "brook_(tiny-random)": ("green", "aqua", "blue"),
    "shade_(tiny-random)": ("black", "grey"),
}
"""Made-up characters, each predicted for pictures that consist of its colours."""


def write(folder: Path) -> None:
    """Write the model folder: pixels in, probabilities out."""
    graph = GraphBuilder()
    logits = graph.add("Concat", *_build_logits(graph), axis=1)
    graph.add("Sigmoid", logits, output="output")
    write_model(folder / "model.onnx", graph.build("tiny_random", side=SIZE, outputs=len(labels())))
    write_tags_and_manifest(folder, "tiny-random", labels(), side=SIZE)


def labels() -> list[tuple[str, int]]:
    """Tag and category number of each output, in order."""
    general = [*COLOURS, *(f"{colour}_background" for colour in COLOURS), *PROPERTIES]
    return [*((tag, 9) for tag in RATINGS), *((tag, 0) for tag in general), *((tag, 4) for tag in CHARACTERS)]


def _build_logits(graph: GraphBuilder) -> list[str]:
    """One tensor of logits per group of tags, in the order of `labels`."""
    memberships = _colour_memberships(graph)
    whole, border = _mean(graph, memberships), _border_mean(graph, memberships)
    ratings = graph.add("MatMul", whole, np.zeros((len(COLOURS), len(RATINGS)), np.float32))
    ratings = graph.add("Add", ratings, np.array(list(RATINGS.values()), np.float32))
    colour_to_character = np.array(
        [[name in colours for colours in CHARACTERS.values()] for name in COLOURS], np.float32
    )
    return [
        ratings,
        _rising_logit(graph, whole, 0.12, 30),
        _rising_logit(graph, border, 0.5, 12),
        *_property_logits(graph),
        _rising_logit(graph, graph.add("MatMul", whole, colour_to_character), 0.7, 25),
    ]


def _colour_memberships(graph: GraphBuilder) -> str:
    """(n, rows, columns, colours): each pixel's membership in each colour, a softmax over distances to the anchors."""
    anchors = np.array([rgb[::-1] for _, rgb in ANCHORS], np.float32)
    # -|x - a|^2 and 2xa - |a|^2 differ by |x|^2, which is the same for all anchors and cancels in the softmax.
    score = graph.add("MatMul", "input", (anchors.T / COLOUR_SIGMA**2).astype(np.float32))
    score = graph.add("Sub", score, ((anchors**2).sum(1) / (2 * COLOUR_SIGMA**2)).astype(np.float32))
    names = np.array([[name == colour for colour in COLOURS] for name, _ in ANCHORS], np.float32)
    return graph.add("MatMul", graph.add("Softmax", score, axis=3), names)


def _property_logits(graph: GraphBuilder) -> list[str]:
    light = graph.add("MatMul", "input", np.array([[0.114], [0.587], [0.299]], np.float32) / np.float32(255))
    mean_light = _mean(graph, light)
    spread = graph.add("Sub", _reduce_channels(graph, "ReduceMax"), _reduce_channels(graph, "ReduceMin"))
    saturation = _mean(graph, graph.add("Div", spread, np.array(255, np.float32)))
    background = graph.add("Reshape", _border_mean(graph, light), np.array([0, 1, 1, 1]))
    roughness = _border_mean(graph, graph.add("Abs", graph.add("Sub", light, background)))
    return [
        _falling_logit(graph, mean_light, 0.3, 20),
        _rising_logit(graph, mean_light, 0.7, 20),
        _rising_logit(graph, saturation, 0.4, 15),
        _falling_logit(graph, saturation, 0.04, 100),
        _falling_logit(graph, roughness, 0.05, 80),
    ]


def _mean(graph: GraphBuilder, values: str) -> str:
    """Mean over the picture: (n, rows, columns, k) to (n, k)."""
    return graph.add("ReduceMean", values, axes=[1, 2], keepdims=0)


def _border_mean(graph: GraphBuilder, values: str) -> str:
    """Mean over the border only, computed as the whole minus the inside."""
    start, stop = np.array([BORDER, BORDER]), np.array([-BORDER, -BORDER])
    inside = _mean(graph, graph.add("Slice", values, start, stop, np.array([1, 2])))
    share = (SIZE - 2 * BORDER) ** 2 / SIZE**2
    outside = graph.add("Sub", _mean(graph, values), graph.add("Mul", inside, np.array(share, np.float32)))
    return graph.add("Div", outside, np.array(1 - share, np.float32))


def _reduce_channels(graph: GraphBuilder, kind: str) -> str:
    return graph.add(kind, "input", axes=[3], keepdims=1)


def _rising_logit(graph: GraphBuilder, values: str, middle: float, slope: float) -> str:
    """A logit that is 0 at `middle` and increases with the value."""
    distance = graph.add("Sub", values, np.array(middle, np.float32))
    return graph.add("Mul", distance, np.array(slope, np.float32))


def _falling_logit(graph: GraphBuilder, values: str, middle: float, slope: float) -> str:
    return _rising_logit(graph, values, middle, -slope)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else _SHIPPED)
