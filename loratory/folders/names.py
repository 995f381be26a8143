"""What files are called: which are pictures, which are texts, and how a form preserves their names. Pure."""

import re

from contracts.image_names import MAX_NAME_CHARACTERS
from loratory.folders.files import File

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif")
"""Extensions of image files; whether the content is a supported image is decided by the server."""
TEXT_SUFFIXES = (".txt", ".caption")
"""Extensions, in any case, of text files that belong to the image with their stem; the first existing one is used."""

_REASONS = {
    ".npz": "it is a cache of a trainer",
    ".safetensors": "it is a model, not a picture",
    ".parquet": "Parquet is not read; write it as metadata.jsonl",
    ".zip": "an archive inside is not read; import it by itself",
    ".toml": "it is no dataset configuration at the top of the folder",
    ".json": "it has no texts of pictures here",
    ".jsonl": "it is neither metadata.jsonl nor a manifest at the top of the folder",
}


def is_image_name(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_hidden(file: File) -> bool:
    return file.place.name.startswith(".")


def reason_for_other(file: File) -> str:
    """Why a file is left out that nothing reads."""
    if is_hidden(file):
        return "it is hidden"
    return _REASONS.get(file.suffix, "it is no picture and no text of one")


def form_name(name: str) -> str:
    """The name as a multipart form preserves it, since texts are matched by it: no quotes, no control characters."""
    readable = name.encode("utf-8", "replace").decode()
    return re.sub(r'[\x00-\x1f\x7f"\\]', "_", readable)[-MAX_NAME_CHARACTERS:]
