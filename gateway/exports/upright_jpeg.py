"""A stored JPEG with its pixels in the order in which they are seen, for programs that ignore the orientation. Pure.

The only module of the gateway that needs Pillow; it is loaded in a child process.
"""

from io import BytesIO
from typing import Any

from PIL import JpegImagePlugin

from contracts.pixels import FIRST_SIDEWAYS, TRANSPOSES, orientation_of

FULL, HALF_WIDTH, HALF_BOTH = 0, 1, 2
"""Pillow's numbers of how much of the colours is stored: 4:4:4, 4:2:2, 4:2:0."""
_SIDE = 8  # of a block, and of a table of quantisation


def upright_jpeg(content: bytes) -> bytes:
    """Equal bytes for equal content. Pillow's errors if it cannot be decoded.

    It is encoded with its own tables of quantisation and sampling of colours: as large as it was, and almost without
    loss, as the same frequencies are rounded to the same steps.
    """
    image = JpegImagePlugin.JpegImageFile(BytesIO(content))
    orientation = orientation_of(image)
    options = _encoding(image, sideways=orientation >= FIRST_SIDEWAYS)
    image.load()
    upright = image.transpose(TRANSPOSES[orientation]) if orientation in TRANSPOSES else image
    upright.info = {}
    written = BytesIO()
    upright.save(written, "JPEG", **options)
    return written.getvalue()


def _encoding(image: JpegImagePlugin.JpegImageFile, *, sideways: bool) -> dict[str, Any]:
    tables = [image.quantization[table] for _, _, _, table in image.layer]
    if sideways:  # horizontal frequencies become vertical ones
        tables = [[table[row * _SIDE + column] for column in range(_SIDE) for row in range(_SIDE)] for table in tables]
    sampling = JpegImagePlugin.get_sampling(image)
    is_rgb = len(tables) > 1 and image.info.get("adobe_transform") == 0
    # Half the width becomes half the height, which Pillow cannot write, nor the rarer ones: then nothing is left out.
    keeps_sampling = not is_rgb and (sampling == HALF_BOTH or (sampling == HALF_WIDTH and not sideways))
    return {"qtables": tables, "subsampling": sampling if keeps_sampling else FULL, "keep_rgb": is_rgb}
