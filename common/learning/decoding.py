"""One image file decoded with pillow: what is read from disk, the limits, any colours to upright RGB.

Loads neither TensorFlow nor scikit-learn: inference on a Pi decodes through this module too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.learning.image_headers import Header, broken, read_header
from common.learning.seam import Images

if TYPE_CHECKING:
    from PIL import Image

MAX_FILE_BYTES = 2**26
MAX_PIXELS = 2**26
"""A file of a few kilobytes can claim billions of pixels, and even those that are thrown away take time."""
MAX_MEMORY = 150_000_000
"""Bytes that decoding one file may take, the file itself among them."""
MAX_SCAN_BLOCKS = 2**25
"""Blocks of 8 x 8 coefficients times scans of a progressive JPEG: what decoding it costs in time."""
REDUCED = 2
"""A JPEG is decoded at a half, a quarter or an eighth of its size where it stays this many times what is asked for."""
STRIP_PIXELS = 2**16
"""Pixels that are converted at once."""
STRIP_BYTES = 40
"""What converting a pixel takes at most."""
FIXED_BYTES = 6_000_000
"""What decoding takes whatever the size: buffers of the decoders and of the file."""
WHITE = 65_535
WHITE_12_BIT = 4095

Values: TypeAlias = NDArray[np.uint16]
Fit: TypeAlias = Callable[[int, int], tuple[int, int]]


def decode_image(data: bytes, image_size: int) -> Images:
    """Decode a JPEG or PNG file to uint8 RGB `[image_size, image_size, 3]`, upright, whatever its colours.

    What is transparent becomes black, the background of a slice. A PNG of 16 bits a sample has the grey levels of
    its like in 8 bits: 65535 becomes 255. One whose samples are all below 4096 holds 12 bits, as scanners
    give them, and 4095 becomes 255; unless all are multiples of 257, as in a dark picture that was made from 8 bits.
    Metadata decides nothing but the orientation. Raises DataError with the reason.
    """
    side = image_size or 1  # a learner that takes no images still needs their labels
    image = _decode(data, lambda _width, _height: (side, side))
    return np.asarray(image, np.uint8) if image_size else np.zeros((0, 0, 3), np.uint8)


def open_image(data: bytes, longest: int) -> "Image.Image":
    """Decode as `decode_image` does, to RGB of the file's own shape with sides of at most `longest` pixels."""

    def fit(width: int, height: int) -> tuple[int, int]:
        scale = min(longest / max(width, height), 1)
        return max(round(width * scale), 1), max(round(height * scale), 1)

    return _decode(data, fit)


def read_image_file(path: Path) -> bytes:
    """Read at most one byte more than `decode_image` accepts; raises DataError with the reason."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise DataError(f"it cannot be read ({error.strerror})") from error


def _decode(data: bytes, fit: Fit) -> "Image.Image":
    """Decode to upright RGB of the size that `fit` gives for the upright picture's width and height."""
    if not data:
        raise DataError("the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB; make it smaller")
    header = read_header(data)
    width, height = (header.height, header.width) if header.orientation >= 5 else (header.width, header.height)
    order = _Order(header, fit(width, height))
    _check_limits(order, len(data))
    try:
        return _resize(_load(order), order)
    except Exception as error:
        # Decoders meet damage where nobody expects it: TypeError, IndexError, MemoryError and RecursionError were seen.
        said = "" if type(error).__name__ == "UnidentifiedImageError" else str(error)[:200]
        raise broken(said or type(error).__name__) from error


@dataclass(frozen=True)
class _Order:
    """A file's claims, and the width and height that its upright picture is to have."""

    header: Header
    size: tuple[int, int]

    @property
    def smallest(self) -> tuple[int, int]:
        """The least width and height, before it is turned, that a JPEG may be decoded at."""
        width, height = self.size[::-1] if self.header.orientation >= 5 else self.size
        return REDUCED * width, REDUCED * height

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height as decoded, before it is turned, by pillow's rule."""
        width, height = self.header.width, self.header.height
        if self.header.kind == "PNG":
            return width, height
        reach = min(width // self.smallest[0], height // self.smallest[1])
        scale = next((scale for scale in (8, 4, 2) if reach >= scale), 1)
        return -(-width // scale), -(-height // scale)

    def boxes(self, orientation: int) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
        """Cut the stored picture into strips that are rows once it is turned: the first row, and the strip's box."""
        width, height = self.stored
        rows, length = (width, height) if orientation >= 5 else (height, width)
        step = max(STRIP_PIXELS // max(length, self.size[0]), 1)
        for start in range(0, rows, step):
            end = min(start + step, rows)
            first, last = (rows - end, rows - start) if orientation in {3, 4, 7, 8} else (start, end)
            yield start, (first, 0, last, height) if orientation >= 5 else (0, first, width, last)


def _check_limits(order: _Order, file_bytes: int) -> None:
    header = order.header
    claim = f"its {header.width} x {header.height} pixels"
    if header.width * header.height > MAX_PIXELS:
        raise DataError(f"{claim} are more than {MAX_PIXELS}, the limit; make it smaller")
    if header.coefficient_bytes // 128 * header.scans > MAX_SCAN_BLOCKS:
        raise DataError(f"{claim} come in {header.scans} scans, too many for their number; save it as a baseline JPEG")
    memory = file_bytes + _memory(order)
    if memory > MAX_MEMORY:
        raise DataError(
            f"decoding {claim} takes {memory // 10**6} MB of memory where {MAX_MEMORY // 10**6} MB are the limit; "
            "make it smaller"
        )


def _memory(order: _Order) -> int:
    """Bytes that decoding and resizing take at once, besides the file."""
    header, (width, height) = order.header, order.stored
    rows, length = (width, height) if header.orientation >= 5 else (height, width)
    sample_bytes = max(header.depth // 8, 1)
    pixel_bytes = sample_bytes if header.channels == 1 else 4 if header.channels == 2 else 4 * sample_bytes
    picture = height * (width * pixel_bytes + 16)
    decoder = header.coefficient_bytes + 2 * header.width * header.channels * (16 if header.kind == "JPEG" else 2)
    resized = rows * (4 * order.size[0] + 16) + 4 * order.size[0] * order.size[1] + 32 * (rows + length)
    return picture + decoder + resized + max(STRIP_PIXELS, length, order.size[0]) * STRIP_BYTES + FIXED_BYTES


def _load(order: _Order) -> "list[Image.Image]":
    """Decode the stored pixels: one picture, or two where 16 bits a sample are two bytes in different ones."""
    from PIL import Image

    raw_modes = [""]
    if order.header.depth == 16 and order.header.channels > 1:
        # Pillow would keep the high bytes only. Its names of layouts let us have the low ones too: as 4 channels
        # of one byte for grey and alpha, as if they were the high ones of the other byte order else.
        raw_modes = {2: ["RGBA"], 3: ["RGB;16B", "RGB;16L"], 4: ["RGBA;16B", "RGBA;16L"]}[order.header.channels]
    images: list[Image.Image] = []
    for raw_mode in raw_modes:
        image = Image.open(order.header.open(), formats=(order.header.kind,))
        image.draft(None, order.smallest)  # only a JPEG has reduced sizes
        if raw_mode:
            image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
        image.load()
        images.append(image)
    return images


def _resize(images: "list[Image.Image]", order: _Order) -> "Image.Image":
    """Convert, turn and resize strip by strip, by bytes as if it were done at once."""
    from PIL import Image

    way = _transpose(order.header.orientation)
    whites = _whites(images, order) if order.header.depth == 16 else (WHITE, WHITE)
    # Bilinear with pillow's antialiasing, which computes uint8 in integers: the same on every machine. It resizes
    # across first, then down, so that rows can be resized across by themselves.
    width, rows = order.size[0], order.stored[order.header.orientation < 5]
    across = Image.new("RGB", (width, rows))
    for start, box in order.boxes(order.header.orientation):
        strip = _to_rgb([image.crop(box) for image in images], order.header, whites)
        strip = strip if way is None else strip.transpose(way)
        across.paste(strip.resize((width, strip.height), Image.Resampling.BILINEAR), (0, start))
    return across.resize(order.size, Image.Resampling.BILINEAR)


def _transpose(orientation: int) -> "Image.Transpose | None":
    from PIL.Image import Transpose

    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)


def _to_rgb(strips: "list[Image.Image]", header: Header, whites: tuple[int, int]) -> "Image.Image":
    from PIL import Image

    image = _narrow(strips, header, whites) if header.depth == 16 else strips[0]
    if not image.has_transparency_data:
        return image.convert("RGB")
    pixels = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", pixels.size, "black"), pixels).convert("RGB")


# ---- 16 bits a sample -----------------------------------------------------------------------


def _whites(images: "list[Image.Image]", order: _Order) -> tuple[int, int]:
    """The sample that is white and the one that is opaque: 65535, or 4095 where the file holds 12 bits."""
    channels, has_alpha = order.header.channels, order.header.channels in {2, 4}
    found = [True] * channels  # so far, each channel's samples could be of 12 bits
    are_repeated = [True] * channels
    for _, box in order.boxes(1):
        values = _values([image.crop(box) for image in images], channels)
        found = [is_low and int(values[..., c].max()) <= WHITE_12_BIT for c, is_low in enumerate(found)]
        if not any(found):
            break
        are_repeated = [is_so and not (values[..., c] % 257).any() for c, is_so in enumerate(are_repeated)]
    colours = slice(0, channels - has_alpha)
    is_12_bit = all(found[colours]) and not all(are_repeated[colours])
    is_alpha_12_bit = found[-1] and not are_repeated[-1]
    return (WHITE_12_BIT if is_12_bit else WHITE), (WHITE_12_BIT if is_alpha_12_bit else WHITE)


def _values(strips: "list[Image.Image]", channels: int) -> Values:
    """Samples `[height, width, channels]`."""
    first = np.asarray(strips[0])
    if channels == 1:
        return first.astype(np.uint16)[..., None]
    high, low = (first[..., ::2], first[..., 1::2]) if channels == 2 else (first, np.asarray(strips[1]))
    values: Values = high.astype(np.uint16) << 8 | low
    return values


def _narrow(strips: "list[Image.Image]", header: Header, whites: tuple[int, int]) -> "Image.Image":
    """Bring samples of 16 bits to 8, as RGB, or RGBA where something can be transparent."""
    from PIL import Image

    values = _values(strips, header.channels)
    has_alpha, key = header.channels in {2, 4}, strips[0].info.get("transparency")
    colours = values[..., : header.channels - has_alpha]
    layers: list[NDArray[Any]] = [np.broadcast_to(_to_8_bit(colours, whites[0]), (*values.shape[:2], 3))]
    if has_alpha:
        layers.append(_to_8_bit(values[..., -1:], whites[1]))
    elif key is not None:
        layers.append(np.where((colours == np.array(key)).all(axis=2, keepdims=True), 0, 255).astype(np.uint8))
    return Image.fromarray(np.concatenate(layers, axis=2))


def _to_8_bit(values: Values, white: int) -> NDArray[np.uint8]:
    scaled = (np.minimum(values, white).astype(np.uint32) * 255 + white // 2) // white
    narrow: NDArray[np.uint8] = scaled.astype(np.uint8)
    return narrow
