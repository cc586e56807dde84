"""Single image files decoded: any colours, any damage."""

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from common.errors import DataError
from common.learning.decoding import decode_image, open_image

GRADIENT = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2


def encoded(mode: str = "L", suffix: str = "PNG", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(GRADIENT).convert(mode).save(file, suffix, exif=exif)
    return file.getvalue()


def png(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims this many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + start + struct.pack(">I", 0) + b"IDAT"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_of_any_colours_becomes_rgb(mode: str) -> None:
    assert decode_image(encoded(mode), 32).shape == (32, 32, 3)
    assert decode_image(encoded(mode), 32).dtype == np.uint8


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_of_any_colours_looks_like_the_original(mode: str) -> None:
    decoded = decode_image(encoded(mode, "JPEG"), 32).astype(int)
    assert np.abs(decoded - decode_image(encoded(), 32)).mean() < 6


def test_sixteen_bit_grey_that_fills_twelve_bits_uses_the_whole_range() -> None:
    image = np.asarray(open_image(png(GRADIENT.astype(np.uint16) * 20)))
    assert image.max() == 255
    np.testing.assert_allclose(image[..., 0], GRADIENT * (255 / GRADIENT.max()), atol=1)


def test_what_is_transparent_becomes_black() -> None:
    pixels = np.full((8, 8, 4), 200, np.uint8)
    pixels[..., 3] = np.repeat([0, 255], 4)
    decoded = np.asarray(open_image(png(pixels)))
    assert decoded[0].tolist() == [[0, 0, 0]] * 4 + [[200, 200, 200]] * 4


def test_a_photograph_that_lies_on_its_side_is_turned_upright() -> None:
    upright = open_image(encoded(orientation=6))
    assert upright.size == (40, 60)
    np.testing.assert_array_equal(np.asarray(upright)[..., 0], np.rot90(GRADIENT, -1))


def test_a_learner_that_takes_no_images_gets_none() -> None:
    assert decode_image(encoded(), 0).shape == (0, 0, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello", "neither a JPEG nor a PNG"),
        (b"GIF89a" + bytes(100), "neither a JPEG nor a PNG"),
        (encoded("RGB", "JPEG")[:-300], "broken"),
        (encoded()[:-30], "broken"),
        (claims(6000, 6000), "6000 x 6000 pixels"),
        (claims(100_000, 100_000), "broken"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        decode_image(data, 32)


@pytest.mark.filterwarnings("ignore:.*EXIF", "ignore:Tag data", "ignore:Truncated")
@given(st.sampled_from([encoded("P"), encoded("RGB", "JPEG", 6)]), st.data())
def test_any_damage_gives_an_image_or_a_data_error(original: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(original) - 1))
    damaged = original[:place] + data.draw(st.binary(max_size=8)) + original[place + 4 :]
    with contextlib.suppress(DataError):
        assert decode_image(damaged, 8).shape == (8, 8, 3)
