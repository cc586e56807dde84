"""One image file decoded with pillow: what is read from disk, the limits, any colours to upright RGB.

Loads neither TensorFlow nor scikit-learn: inference on a Pi decodes through this module too.
"""

import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import DataError
from common.learning.seam import Images

if TYPE_CHECKING:
    from PIL import Image

MAX_FILE_BYTES = 2**26
MAX_PIXELS = 2**25
"""A file of a few kilobytes can claim billions of pixels, and a pixel takes 4 bytes once or twice over."""


def decode_image(data: bytes, image_size: int) -> Images:
    """Decode a JPEG or PNG file to uint8 RGB `[image_size, image_size, 3]`; raises DataError with the reason."""
    from PIL import Image

    image = open_image(data)
    if image_size == 0:  # a learner that takes no images still needs their labels
        return np.zeros((0, 0, 3), np.uint8)
    # Bilinear with pillow's antialiasing, which computes uint8 in integers: the same on every machine.
    return np.asarray(image.resize((image_size, image_size), Image.Resampling.BILINEAR), np.uint8)


def open_image(data: bytes) -> "Image.Image":
    """Decode a JPEG or PNG file, whatever its colours, to an upright RGB image of its own size.

    16-bit grey is scaled so that its brightest pixel is 255, as scanners fill 12 of the 16 bits;
    what is transparent becomes black, the background of a slice. Raises DataError with the reason.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise DataError("the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise DataError(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"it has {image.width} x {image.height} pixels; {MAX_PIXELS} in all are the limit")
        ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)
    except UnidentifiedImageError as error:
        raise DataError("it is neither a JPEG nor a PNG file") from error
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(f"the image is broken ({str(error)[:200] or type(error).__name__})") from error


def read_image_file(path: Path) -> bytes:
    """Read at most one byte more than `open_image` accepts; raises DataError with the reason."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise DataError(f"it cannot be read ({error.strerror})") from error


def _to_rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey
        grey = np.asarray(image).astype(np.int64)
        image = Image.fromarray((grey * 255 // max(int(grey.max()), 1)).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    pixels = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", pixels.size, "black"), pixels).convert("RGB")
