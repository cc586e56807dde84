"""What a JPEG or PNG file claims, read before anything is decoded, and the parts of it that decide its pixels.

Metadata is left out here, so that no decoder sees it: EXIF but for the orientation, colour profiles, resolution, texts.
"""

import io
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, TypeAlias

from common.errors import DataError
from common.learning import file_kinds

Piece: TypeAlias = bytes | memoryview
Segment: TypeAlias = tuple[int, int, int]
"""A JPEG segment's marker, and where it starts and ends in the file."""
PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
MAX_PARTS = 100_000
"""Segments or chunks of one file: each costs time, however small it is."""
MAX_SEGMENT_BYTES = 2**16
EXIF_START = b"Exif\0\0"
ORIENTATION = 0x0112
EXIF_FORMATS = {1: "B", 3: "H", 4: "I"}
"""How EXIF's types of whole numbers are laid out."""
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples a pixel by PNG's colour type."""
PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
CHUNK_BYTES = {b"IHDR": 13, b"PLTE": 768, b"tRNS": 256}
"""The longest content of a PNG chunk that comes once."""
FRAMES = {0xC0: False, 0xC1: False, 0xC2: True}
"""JPEG's frame markers that are decoded here, and whether such a frame is progressive."""
OTHER_FRAMES = {
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "a lossless JPEG"),
    **dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "a hierarchical JPEG"),
    **dict.fromkeys((0xC9, 0xCA), "an arithmetic-coded JPEG"),
    0xF7: "a JPEG-LS file",
}
"""Those that are not, and what a file is that has one."""
TABLES = frozenset({0xC4, 0xDB, 0xDD})
"""JPEG's segments that hold tables: Huffman, quantisation, restart interval."""
SCAN = 0xDA
JFIF = b"\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
"""A JFIF segment that claims nothing but that colours are stored as JFIF says."""
MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)


@dataclass(frozen=True)
class Header:
    """What a file claims. `pieces` are its parts in order, without metadata."""

    kind: Literal["JPEG", "PNG"]
    width: int
    height: int
    channels: int
    depth: int
    """Bits a sample."""
    orientation: int
    """As EXIF counts: 1 upright, 2 to 8 mirrored or turned."""
    pieces: Sequence[Piece]
    coefficient_bytes: int = 0
    """What a JPEG decoder holds at once where the picture comes in several scans."""
    scans: int = 1

    def open(self) -> io.BufferedReader:
        """Open the file as if metadata had never been in it; nothing is copied."""
        return io.BufferedReader(_Joined(self.pieces))


def read_header(data: bytes) -> Header:
    """Read what the file `data` claims. Raises DataError that says what it is, if it is neither JPEG nor PNG."""
    try:
        if data.startswith(PNG_START):
            return _read_png(data)
        if data.startswith(JPEG_START):
            return _read_jpeg(data)
    except (struct.error, IndexError) as error:
        raise broken("it ends in its header") from error
    raise DataError(file_kinds.describe(data))


def broken(reason: str) -> DataError:
    """Say that a file is a JPEG or PNG, but broken."""
    return DataError(f"the image is broken ({reason}); make or copy it anew")


def read_orientation(exif: Piece) -> int:
    """Read the orientation out of EXIF data, from its byte order on; 1 where there is none that makes sense."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(exif[:2]), "")
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for place in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(f"{order}HHI", exif, place)
            if tag == ORIENTATION:
                (value,) = struct.unpack_from(order + EXIF_FORMATS[kind], exif, place + 8)
                return int(value) if number == 1 and order and 1 <= value <= 8 else 1
    except (struct.error, KeyError):
        pass
    return 1


# ---- PNG ------------------------------------------------------------------------------------


def _read_png(data: bytes) -> Header:
    size, kind, width, height, depth, colour = struct.unpack_from(">I4sIIBB", data, len(PNG_START))
    if kind != b"IHDR" or size != CHUNK_BYTES[b"IHDR"] or depth not in PNG_DEPTHS.get(colour, ()):
        raise broken("its header is none of a PNG file")
    _check_sides(width, height)
    view, orientation = memoryview(data), 0
    runs = [[0, len(PNG_START)]]
    once = dict(CHUNK_BYTES)
    for kind, start, end in _chunks(data):
        if kind == b"eXIf" and not orientation:
            content = view[start + 8 : end - 4]
            orientation = read_orientation(content[6:] if bytes(content[:6]) == EXIF_START else content)
        if kind not in {b"IDAT", b"IEND"} and end - start - 12 > once.pop(kind, -1):
            continue
        if runs[-1][1] == start:
            runs[-1][1] = end
        else:
            runs.append([start, end])
    pieces = [view[start:end] for start, end in runs]
    return Header("PNG", width, height, PNG_CHANNELS[colour], depth, orientation or 1, pieces)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Each chunk's kind, and where it starts and ends in `data`."""
    place = len(PNG_START)
    for _ in range(MAX_PARTS):
        if place + 8 > len(data):
            return
        size, kind = struct.unpack_from(">I4s", data, place)
        end = min(place + 12 + size, len(data))
        yield kind, place, end
        if kind == b"IEND":
            return
        place = end
    raise broken(f"it has more than {MAX_PARTS} parts")


# ---- JPEG -----------------------------------------------------------------------------------


def _read_jpeg(data: bytes) -> Header:
    segments = list(_segments(data))
    other = next((OTHER_FRAMES[marker] for marker, _, _ in segments if marker in OTHER_FRAMES), None)
    if other is not None:
        raise DataError(f"it is {other}, which is not read here; convert it to PNG")
    frames = [(marker, data[start:end]) for marker, start, end in segments if marker in FRAMES]
    if len(frames) != 1:
        raise broken(f"it has {len(frames)} frame headers")
    marker, frame = frames[0]
    width, height, components = _read_frame(frame)
    first_scan = segments[-1][1]
    is_buffered = FRAMES[marker] or data[first_scan + 4] < len(components)
    view = memoryview(data)
    tables = [view[start:end] for marker, start, end in segments if marker in TABLES or marker in FRAMES]
    return Header(
        "JPEG",
        width,
        height,
        len(components),
        8,
        _orientation_of(data, segments),
        [JPEG_START, _colours(data, segments), *tables, view[first_scan:]],
        _coefficient_bytes(width, height, components) if is_buffered else 0,
        data.count(bytes((0xFF, SCAN)), first_scan),
    )


def _orientation_of(data: bytes, segments: Sequence[Segment]) -> int:
    found = (start + 4 for marker, start, _ in segments if marker == 0xE1 and data.startswith(EXIF_START, start + 4))
    start = next(found, None)
    return 1 if start is None else read_orientation(data[start + len(EXIF_START) : start + MAX_SEGMENT_BYTES])


def _colours(data: bytes, segments: Sequence[Segment]) -> bytes:
    """The segment that says how colours are stored, without what else it claims; JFIF rules, as in libjpeg."""
    if any(marker == 0xE0 and data.startswith(b"JFIF\0", start + 4) for marker, start, _ in segments):
        return JFIF
    adobe = (
        data[start:end]
        for marker, start, end in segments
        if marker == 0xEE and data.startswith(b"Adobe", start + 4) and end - start >= 16
    )
    return next(adobe, b"")


def _segments(data: bytes) -> Iterator[Segment]:
    """The segments of `data` up to the first scan."""
    place = len(JPEG_START)
    for _ in range(MAX_PARTS):
        found = MARKER.search(data, place)
        if found is None or found[1] == b"\xd9":
            raise broken("it has no pixels")
        place = found.end()
        marker = found[1][0]
        if marker in {0x00, 0x01} or 0xD0 <= marker <= 0xD8:  # these stand alone
            continue
        (size,) = struct.unpack_from(">H", data, place)
        if size < 2 or place + size > len(data):
            raise broken("it ends in its header")
        yield marker, place - 2, place + size
        if marker == SCAN:
            return
        place += size
    raise broken(f"it has more than {MAX_PARTS} parts")


def _read_frame(segment: bytes) -> tuple[int, int, list[tuple[int, int]]]:
    """Width, height, and each component's sampling factors, across and down."""
    depth, height, width, count = struct.unpack_from(">BHHB", segment, 4)
    if depth != 8:
        raise DataError(f"it is a {depth}-bit JPEG, which is not read here; convert it to PNG")
    if count not in {1, 3, 4}:
        raise DataError(f"it is a JPEG of {count} channels where 1, 3 or 4 are read; convert it to PNG")
    factors = [segment[11 + 3 * number] for number in range(count)]
    components = [(factor >> 4, factor & 15) for factor in factors]
    if not all(1 <= across <= 4 and 1 <= down <= 4 for across, down in components):
        raise broken("its channels have no sizes")
    _check_sides(width, height)
    return width, height, components


def _coefficient_bytes(width: int, height: int, components: Sequence[tuple[int, int]]) -> int:
    """Bytes of all coefficients, 2 each, in blocks of 8 x 8 that fill whole units of the sampling."""
    units = -(-width // (8 * max(a for a, _ in components))) * -(-height // (8 * max(d for _, d in components)))
    return sum(units * across * down * 128 for across, down in components)


def _check_sides(width: int, height: int) -> None:
    if not width or not height:
        raise broken(f"it claims {width} x {height} pixels")


class _Joined(io.RawIOBase):
    """Reads pieces one behind the other."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self._pieces = [piece for piece in pieces if len(piece)]
        self._ends = list(accumulate(map(len, self._pieces)))
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = max(offset + (0, self._place, self._ends[-1])[whence], 0)
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the io module passes a memoryview
        number = bisect_right(self._ends, self._place)
        if number == len(self._pieces):
            return 0
        piece = self._pieces[number]
        start = self._place - self._ends[number] + len(piece)
        part = piece[start : start + len(buffer)]
        buffer[: len(part)] = part
        self._place += len(part)
        return len(part)
