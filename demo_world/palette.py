"""The colours of the demo world. Backgrounds are pale (or dark) and subjects vivid, so colour alone separates them."""

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (226, 62, 58),
    "orange": (245, 140, 40),
    "yellow": (252, 212, 64),
    "green": (82, 172, 84),
    "teal": (38, 172, 176),
    "blue": (64, 116, 220),
    "purple": (140, 84, 194),
    "pink": (246, 124, 178),
    "brown": (146, 94, 60),
    "white": (253, 251, 246),
}
"""Colours of subjects. Shaded and textured parts use the `deep` and `light` shades of the same colour."""

BACKGROUNDS: dict[str, Colour] = {
    "blue": (190, 214, 246),
    "teal": (184, 230, 226),
    "green": (200, 230, 188),
    "yellow": (252, 238, 186),
    "orange": (253, 220, 186),
    "pink": (252, 212, 226),
    "purple": (218, 204, 242),
    "grey": (208, 210, 216),
    "dark": (52, 54, 92),
}

INK: Colour = (48, 40, 56)
CHEEK: Colour = (250, 150, 150)
MILK: Colour = (255, 253, 248)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """Blend two colours; `share` is the weight of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def deep(colour: Colour) -> Colour:
    """The shade for stripes, feet and edges; for white a cool grey, darker than the pale backgrounds."""
    return mix(colour, (92, 92, 132), 0.55) if min(colour) > 230 else mix(colour, (60, 30, 60), 0.3)


def light(colour: Colour) -> Colour:
    """The shade for highlights and bellies."""
    return mix(colour, MILK, 0.55)
