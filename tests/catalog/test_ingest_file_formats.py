"""Format detection and the check for bare files never raise; if in doubt, a file is not bare."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from catalog.ingest.file_formats import is_bare, sniff
from catalog.ingest.outcomes import FORMATS, Format


def encode(kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    Image.effect_noise((40, 30), 50).convert("RGB").save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_each_format_is_detected_by_its_content(kind: Format) -> None:
    assert sniff(encode(kind)) == kind


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF\0\0\0\0WAVE",
        b"\0\0\0\x18ftypheic" + bytes(12),
        b"\0\0\0\x18ftypmp42" + bytes(12),
        b"%PDF",
        b"GIF88a",
    ],
)
def test_other_formats_are_not_detected(data: bytes) -> None:
    assert sniff(data) is None


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"optimize": True, "subsampling": 0, "restart_marker_blocks": 4}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_plain_files_are_bare_until_bytes_are_added_or_removed(kind: Format, options: dict[str, object]) -> None:
    data = encode(kind, **options)
    assert is_bare(data, kind)
    assert not is_bare(data + b"PK\3\4", kind)
    assert not is_bare(data[:-1], kind)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
        ("JPEG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
        ("JPEG", {"icc_profile": b"profile"}),
        ("JPEG", {"comment": b"made by"}),
        ("WEBP", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
        ("WEBP", {"icc_profile": b"profile"}),
        ("GIF", {}),
        ("BMP", {}),
    ],
)
def test_files_with_more_than_pixels_are_not_bare(kind: Format, options: dict[str, object]) -> None:
    assert not is_bare(encode(kind, **options), kind)


@given(st.binary(max_size=300), st.sampled_from(FORMATS), st.integers(0, 40))
def test_arbitrary_bytes_never_raise(noise: bytes, kind: Format, kept: int) -> None:
    data = encode("PNG" if kind in ("AVIF", "TIFF") else kind)[:kept] + noise
    assert sniff(data) in (None, *FORMATS)
    assert is_bare(data, kind) in (True, False)
