"""What a file is by its first bytes, for people who put another kind where a JPEG or PNG file belongs."""

import struct

LFS = b"version https://git-lfs.github.com/spec/"
NIFTI_SIZES = (348, 540)
"""The first number of a NIfTI header, version 1 and 2: its length in bytes."""
DICOM_GROUPS = (2, 8)
"""Groups of the first tag in a DICOM file without a preamble: of the file, or of the study."""
DICOM_TYPES = frozenset({b"UI", b"UL", b"OB", b"CS", b"SH", b"LO", b"DA", b"TM"})
BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
"""Lengths that the second header of a BMP file may have."""
TEXT_BYTES = 256
"""How much of a file is looked at to tell text from other bytes."""
NEITHER = "it is neither a JPEG nor a PNG file"
TO_PNG = "convert it to PNG"
ANIMATED = "save the picture in it as PNG"
STARTS = (
    (b"GIF87a", "a GIF file", ANIMATED),
    (b"GIF89a", "a GIF file", ANIMATED),
    (b"II*\0", "a TIFF file", TO_PNG),
    (b"MM\0*", "a TIFF file", TO_PNG),
    (b"II+\0", "a TIFF file", TO_PNG),
    (b"MM\0+", "a TIFF file", TO_PNG),
    (b"\0\0\0\x0cjP  \r\n", "a JPEG 2000 file", TO_PNG),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file", TO_PNG),
    (b"\xff\x0a", "a JPEG XL file", TO_PNG),
    (b"\0\0\0\x0cJXL ", "a JPEG XL file", TO_PNG),
    (b"8BPS", "a Photoshop file", TO_PNG),
    (b"%PDF", "a PDF document", "save the picture in it as PNG"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"PK\x05\x06", "a ZIP archive", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "save each picture in it as PNG"),
    (b"\x93NUMPY", "a NumPy file", "save each picture in it as PNG"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document or Thumbs.db", "leave it out"),
    (b"\x00\x00\x01\x00", "a Windows icon", TO_PNG),
    (LFS, "a Git LFS pointer, not the file itself", "fetch the files by `git lfs pull`"),
)
"""First bytes, what a file is that begins with them, and what to do about it."""
PAGES = (b"<!doctype html", b"<html", b"<head", b"<body", b"<!--")
BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"), "an HEIC file"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF file"),
}
"""Brands of the ISO base media file format (`ftyp`) that are pictures."""


def describe(data: bytes) -> str:
    """Say what `data` is, which is neither a JPEG nor a PNG file, and what to do: the end of a sentence."""
    for start, kind, cure in STARTS:
        if data.startswith(start):
            return f"{NEITHER} but {kind}; {cure}"
    found = _picture(data) or _medical(data) or _text(data)
    if found is not None:
        return f"{NEITHER} but {found[0]}; {found[1]}"
    if not data.strip(b"\0"):
        return "it holds zeros only, as after a copy that was cut off; copy it again"
    return f"{NEITHER}; convert it to PNG, or leave it out"


def _picture(data: bytes) -> tuple[str, str] | None:
    if data[:4] == b"RIFF":
        return ("a WebP file", TO_PNG) if data[8:12] == b"WEBP" else ("a RIFF file", "leave it out")
    if data[4:8] == b"ftyp":
        return BRANDS.get(data[8:12], "a video file"), TO_PNG
    if (
        data[:2] == b"BM"
        and len(data) >= 26
        and struct.unpack_from("<I", data, 14)[0] in {12, 40, 52, 56, 64, 108, 124}
    ):
        return "a BMP file", TO_PNG
    if data[:1] == b"P" and data[1:2] in b"1234567" and data[2:3].isspace():
        return "a PNM file", TO_PNG
    return None


def _medical(data: bytes) -> tuple[str, str] | None:
    """Tell DICOM, also without a preamble, and NIfTI."""
    dicom = "a DICOM file", "convert it to PNG, for example by `dcm2img` of DCMTK"
    nifti = "a NIfTI volume", "save its slices as PNG"
    if data[128:132] == b"DICM" or _is_bare_dicom(data):
        return dicom
    if data[:2] == b"\x1f\x8b":
        return "a gzip archive, perhaps a NIfTI volume (.nii.gz)", "unpack it and save its slices as PNG"
    if len(data) >= 4 and {int.from_bytes(data[:4], "little"), int.from_bytes(data[:4], "big")} & set(NIFTI_SIZES):
        is_named = data[344:348] in {b"n+1\0", b"ni1\0"} or data[4:7] in {b"n+2", b"ni2"}
        return nifti if is_named else ("an Analyze or NIfTI header", "save the slices of its volume as PNG")
    return None


def _is_bare_dicom(data: bytes) -> bool:
    """Whether `data` begins with an element of group 2 or 8, which names its type or is short and followed by another.

    The former is the explicit, the latter the implicit form.
    """
    if len(data) < 16:
        return False
    group, element, length = struct.unpack_from("<HHI", data)
    if group not in DICOM_GROUPS or element > 0x0070:
        return False
    return data[4:6] in DICOM_TYPES or (
        group == 8 and length <= 64 and length % 2 == 0 and data[8 + length :][:1] == b"\x08"
    )


def _text(data: bytes) -> tuple[str, str] | None:
    """Tell web pages and drawings from other text; what holds control characters is no text."""
    start = data[:TEXT_BYTES].removeprefix(b"\xef\xbb\xbf")
    if not start or not _is_text(start):
        return None
    text = start.strip().lower()
    if text.startswith(b"<") and b"<svg" in data[:4096].lower():
        return "an SVG drawing", TO_PNG
    if text.startswith(PAGES) or b"<html" in text:
        return "a web page (HTML), as after a download that was refused", "download it again"
    return "an XML file" if text.startswith(b"<?xml") else "a text", "leave it out"


def _is_text(start: bytes) -> bool:
    """Whether `start` is UTF-8 without control characters, but for a character that is cut off at its end."""
    try:
        text = start[: max(len(start) - 3, 1)].decode()
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter.isspace() for letter in text)
