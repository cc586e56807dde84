"""What people put where a JPEG or PNG file belongs is called by its name."""

import gzip
import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from common.learning.decoding import decode_image


def saved(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(4096, dtype=np.uint32).astype(np.uint8).reshape(64, 64)).save(file, kind, **options)
    return file.getvalue()


def frame(marker: int, depth: int = 8, channels: int = 1) -> bytes:
    """The JPEG file of Pillow with another frame header."""
    jpeg = saved("JPEG")
    start = jpeg.index(b"\xff\xc0")
    return (
        jpeg[: start + 1]
        + bytes((marker, 0, 11, depth))
        + jpeg[start + 5 : start + 9]
        + bytes((channels,))
        + jpeg[start + 10 :]
    )


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", saved("PNG"))
    return file.getvalue()


NIFTI = struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(100)
KINDS = {
    "DICOM": (bytes(128) + b"DICM" + bytes(50), "a DICOM file; convert it to PNG"),
    "DICOM without preamble": (b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + bytes(50), "a DICOM file"),
    "implicit DICOM": (struct.pack("<HHI", 8, 5, 10) + b"ISO_IR 100" + b"\x08\0\x16\0" + bytes(50), "a DICOM file"),
    "NIfTI": (NIFTI, "a NIfTI volume; save its slices as PNG"),
    "NIfTI 2": (struct.pack(">i", 540) + b"n+2\0\r\n\x1a\n" + bytes(400), "a NIfTI volume"),
    "packed NIfTI": (gzip.compress(NIFTI), r"NIfTI volume \(\.nii\.gz\); unpack it"),
    "WebP": (saved("WEBP"), "a WebP file; convert it to PNG"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "an HEIC file; convert it to PNG"),
    "AVIF": (b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF file; convert it to PNG"),
    "video": (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video file"),
    "TIFF": (saved("TIFF"), "a TIFF file; convert it to PNG"),
    "big TIFF": (b"MM\0+\0\x08\0\0" + bytes(20), "a TIFF file"),
    "GIF": (saved("GIF"), "a GIF file; save the picture in it as PNG"),
    "BMP": (saved("BMP"), "a BMP file; convert it to PNG"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20), "a JPEG 2000 file"),
    "12-bit JPEG": (frame(0xC1, depth=12), "a 12-bit JPEG, .* convert it to PNG"),
    "lossless JPEG": (frame(0xC3), "a lossless JPEG, .* convert it to PNG"),
    "JPEG of two channels": (frame(0xC0, channels=2), "a JPEG of 2 channels"),
    "HTML": (
        b"\n<!DOCTYPE html>\n<html><body>Please log in</body></html>",
        r"a web page \(HTML\), .* download it again",
    ),
    "SVG": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
    "XML": (b'\xef\xbb\xbf<?xml version="1.0"?><a/>', "an XML file"),
    "PDF": (b"%PDF-1.7\n", "a PDF document"),
    "ZIP": (zipped(), "a ZIP archive; unpack it"),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
        "a Git LFS pointer.*git lfs pull",
    ),
    "text": ("Größe: 3 px\n".encode() * 40, "a text; leave it out"),
    "nothing": (b"", "the file is empty"),
    "zeros": (bytes(4096), "it holds zeros only.*copy it again"),
    "other bytes": (bytes(range(200, 256)), "neither a JPEG nor a PNG file; convert it"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_another_kind_is_called_what_it_is_and_what_to_do(name: str) -> None:
    data, reason = KINDS[name]
    with pytest.raises(DataError, match=reason):
        decode_image(data, 32)


@pytest.mark.parametrize("name", [name for name, (data, _) in KINDS.items() if len(data) > 8])
@pytest.mark.parametrize("cut", range(1, 16))
def test_first_bytes_that_are_cut_off_are_described_too(name: str, cut: int) -> None:
    with pytest.raises(DataError):
        decode_image(KINDS[name][0][:cut], 32)
