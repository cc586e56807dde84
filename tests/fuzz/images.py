"""JPEG and PNG files whose pixels are sound and whose metadata is garbage, and files that are damaged anywhere.

Every file of the first kind must be decoded to the pixels of the picture without metadata, in one of the eight
orientations.
"""

import io
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common.learning.decoding import open_image
from tests.fuzz.mutation import mutate
from tests.fuzz.target import Attempt

ORIENTATION = 0x0112
SIDE = 48
"""The longer side of the pictures in pixels: none is resized."""
TAGS = (
    ORIENTATION,
    0x0100,
    0x010E,
    0x011A,
    0x0128,
    0x0132,
    0x0201,
    0x0202,
    0x02BC,
    0x8298,
    0x8769,
    0x8825,
    0x9286,
    0x927C,
    0xA005,
)
"""Tags that readers look at, pointers to further directories among them."""
JPEG_METADATA = (0xE0, 0xE1, 0xE2, 0xE3, 0xEC, 0xED, 0xEE, 0xFE)
PNG_METADATA = (
    b"eXIf",
    b"iCCP",
    b"zTXt",
    b"iTXt",
    b"tEXt",
    b"pHYs",
    b"tIME",
    b"gAMA",
    b"cHRM",
    b"sRGB",
    b"bKGD",
    b"sPLT",
)


def begin(_folder: Path) -> Attempt:
    """Make small pictures of every layout."""
    jpegs, pngs = _jpegs(), _pngs()
    plain = {data: np.asarray(open_image(data, SIDE)) for data in (*jpegs, *pngs)}

    def attempt(draw: random.Random) -> None:
        is_jpeg = draw.random() < 0.7
        data = draw.choice(jpegs if is_jpeg else pngs)
        tagged = _tag_jpeg(data, draw) if is_jpeg else _tag_png(data, draw)
        if draw.random() < 0.5:
            open_image(mutate(tagged, draw), SIDE)
            return
        found = np.asarray(open_image(tagged, SIDE))
        assert any(np.array_equal(found, turned) for turned in _orientations(plain[data])), "other pixels"

    return attempt


def _orientations(pixels: np.ndarray) -> list[np.ndarray]:
    turned = [np.rot90(pixels, quarter) for quarter in range(4)]
    return [*turned, *(one[:, ::-1] for one in turned)]


def _picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    return Image.fromarray(noise).resize((48, 32), Image.Resampling.BILINEAR)


def _saved(image: Image.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, **options)
    return out.getvalue()


def _jpegs() -> list[bytes]:
    picture = _picture()
    layouts = [
        _saved(picture.convert(mode), format="JPEG", quality=90, progressive=is_progressive)
        for mode in ("L", "RGB", "CMYK")
        for is_progressive in (False, True)
    ]
    return [*layouts, _saved(picture, format="JPEG", optimize=True, restart_marker_rows=1)]


def _pngs() -> list[bytes]:
    picture = _picture()
    modes = [_saved(picture.convert(mode), format="PNG") for mode in ("1", "L", "LA", "P", "RGB", "RGBA")]
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    return [*modes, _saved(deep, format="PNG")]


def _tag_jpeg(data: bytes, draw: random.Random) -> bytes:
    """Put one to three segments of metadata behind the start of `data`."""
    segments = b""
    for _ in range(draw.randint(1, 3)):
        if draw.random() < 0.7:
            marker, body = 0xE1, b"Exif\0\0" + _exif(draw)
        else:
            marker = draw.choice(JPEG_METADATA)
            start = draw.choice(
                (
                    b"",
                    b"JFIF\0",
                    b"Exif\0\0",
                    b"ICC_PROFILE\0",
                    b"Photoshop 3.0\0",
                    b"MPF\0",
                    b"http://ns.adobe.com/xap/1.0/\0",
                )
            )
            body = start + draw.randbytes(draw.randint(0, 64))
        segments += bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body
    return data[:2] + segments + data[2:]


def _tag_png(data: bytes, draw: random.Random) -> bytes:
    """Put one to three chunks of metadata, with right checksums, before the pixels of `data`."""
    at, chunks = data.index(b"IDAT") - 4, b""
    for _ in range(draw.randint(1, 3)):
        name = b"eXIf" if draw.random() < 0.5 else draw.choice(PNG_METADATA)
        body = (
            _exif(draw)
            if name == b"eXIf"
            else draw.choice((b"", b"key\0\0", b"key\0\0\0\0\0")) + draw.randbytes(draw.randint(0, 64))
        )
        chunks += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return data[:at] + chunks + data[at:]


def _exif(draw: random.Random) -> bytes:
    """Return a TIFF header and a directory of entries of any tag, type and count, most of them impossible."""
    order = draw.choice("<>")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(
        order + "I", 8 if draw.random() < 0.9 else draw.choice((0, 7, 2**32 - 1))
    )
    entries = [_entry(draw, order) for _ in range(draw.randint(0, 12))]
    if draw.random() < 0.6:
        entries.insert(0, struct.pack(order + "HHIHH", ORIENTATION, 3, 1, draw.randint(1, 8), 0))
    count = len(entries) if draw.random() < 0.9 else draw.randrange(2**16)
    exif = (
        start
        + struct.pack(order + "H", count)
        + b"".join(entries)
        + struct.pack(order + "I", draw.choice((0, 8, 2**31)))
    )
    return mutate(exif, draw) if draw.random() < 0.3 else exif


def _entry(draw: random.Random, order: str) -> bytes:
    """Return a directory's entry: tag, type, count, and a value or its offset."""
    tag = draw.choice((ORIENTATION, draw.choice(TAGS), draw.randrange(2**16)))
    kind = draw.randint(0, 13) if draw.random() < 0.9 else draw.randrange(2**16)
    count = draw.randint(1, 4) if draw.random() < 0.8 else draw.choice((0, 2**31, 2**32 - 1))
    value = draw.choice(
        (struct.pack(order + "HH", draw.randint(0, 9), 0), draw.randbytes(4), struct.pack(order + "I", 8))
    )
    return struct.pack(order + "HHI", tag, kind, count) + value
