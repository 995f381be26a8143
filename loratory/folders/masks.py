"""OneTrainer's files beside a picture: `<stem>-masklabel.png`, its mask, and `<stem>-condlabel.png`. Pure."""

import re
from pathlib import PurePosixPath
from typing import Literal

MASKS = PurePosixPath("masks")
"""A folder at the top in which masks have the paths of their pictures, as our exports for sd-scripts have them."""
_LABEL = re.compile(r"(?P<stem>.+)-(?P<kind>mask|cond)label\.png\Z", re.IGNORECASE | re.DOTALL)


def parse_label(place: PurePosixPath) -> tuple[Literal["mask", "cond"], PurePosixPath] | None:
    """Its kind, and the path of its picture without extension; none: it is a picture like others."""
    found = _LABEL.match(place.name)
    if found is None:
        return None
    return ("mask" if found["kind"].lower() == "mask" else "cond"), place.with_name(found["stem"])


def reason_for_label(place: PurePosixPath) -> str | None:
    """Why such a file is left out that belongs to no picture, or to none that is imported; none: it is another file."""
    label = parse_label(place)
    if label is None:
        return None
    if label[0] == "mask":
        return "it is a mask, and there is no image of its name"
    return "it is a conditioning image, not a picture"
