"""Single image files decoded: any colours, any damage."""

import contextlib
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from common.errors import DataError
from common.learning import decoding
from common.learning.decoding import decode_image, open_image

LAYOUTS = {0: 1, 2: 3, 4: 2, 6: 4}
"""PNG's colour types, and how many channels they have: grey, RGB, grey and alpha, RGB and alpha."""
GRADIENT = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2


def encoded(mode: str = "L", suffix: str = "PNG", orientation: int = 1, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(GRADIENT).convert(mode).save(file, suffix, exif=exif, **options)
    return file.getvalue()


def png(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def drawn(pixels: NDArray[Any], layout: int, depth: int, more: bytes = b"") -> bytes:
    """A PNG of these samples `[height, width, channels]`, in one of LAYOUTS, with `more` chunks before the pixels."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2" if depth == 16 else np.uint8)
    content = b"".join(b"\0" + row.tobytes() for row in rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, layout, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IDAT", zlib.compress(content, 1)) + chunk(b"IEND", b"")


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    return jpeg[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


def exif(*entries: tuple[int, int, int, int]) -> bytes:
    """EXIF data of one directory: tags, types, counts, values."""
    packed = b"".join(struct.pack(">HHII", *entry) for entry in entries)
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + packed + bytes(4)


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


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_picture_has_the_same_grey_levels_at_8_and_16_bits(layout: int) -> None:
    pixels = np.random.default_rng(layout).integers(0, 256, (40, 60, LAYOUTS[layout]))
    narrow, wide = (decode_image(drawn(pixels * scale, layout, depth), 32) for scale, depth in ((1, 8), (257, 16)))
    np.testing.assert_array_equal(wide, narrow)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_dark_picture_stays_dark_at_16_bits(layout: int) -> None:
    pixels = np.full((8, 8, LAYOUTS[layout]), 255)
    pixels[..., 0 : LAYOUTS[layout] - (layout >= 4)] = 9
    assert decode_image(drawn(pixels * 257, layout, 16), 8).max() == 9


@pytest.mark.parametrize("opaque", [4095, 65_535])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_twelve_bits_in_a_file_of_sixteen_have_the_grey_levels_of_eight(layout: int, opaque: int) -> None:
    pixels = np.random.default_rng(layout).integers(0, 256, (40, 60, LAYOUTS[layout]))
    wide = pixels * 4095 // 255
    if layout >= 4:
        pixels[..., -1], wide[..., -1] = 255, opaque
    narrow, found = decode_image(drawn(pixels, layout, 8), 32), decode_image(drawn(wide, layout, 16), 32)
    assert np.abs(found.astype(int) - narrow).max() <= 1


def test_a_transparent_colour_of_16_bits_becomes_black() -> None:
    pixels = np.full((4, 4, 3), 60_000)
    pixels[:2] = (60_001, 60_000, 60_000)
    decoded = decode_image(drawn(pixels, 2, 16, chunk(b"tRNS", struct.pack(">3H", 60_001, 60_000, 60_000))), 4)
    assert decoded[:, 0, 0].tolist() == [0, 0, 233, 233]


def test_what_is_transparent_becomes_black() -> None:
    pixels = np.full((8, 8, 4), 200, np.uint8)
    pixels[..., 3] = np.repeat([0, 255], 4)
    decoded = np.asarray(open_image(png(pixels), 100))
    assert decoded[0].tolist() == [[0, 0, 0]] * 4 + [[200, 200, 200]] * 4


def test_a_photograph_that_lies_on_its_side_is_turned_upright() -> None:
    upright = open_image(encoded(orientation=6), 100)
    assert upright.size == (40, 60)
    np.testing.assert_array_equal(np.asarray(upright)[..., 0], np.rot90(GRADIENT, -1))


def test_a_learner_that_takes_no_images_gets_none() -> None:
    assert decode_image(encoded(), 0).shape == (0, 0, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (encoded("RGB", "JPEG")[:-300], "broken"),
        (encoded()[:-30], "broken"),
        (claims(6000, 6000), r"its 6000 x 6000 pixels takes 15\d MB of memory where 150 MB are the limit; make it"),
        (claims(100_000, 100_000), "100000 x 100000 pixels are more than 67108864, the limit"),
        (claims(1, 2**25), "of memory where 150 MB are the limit"),
        (claims(0, 8), "broken"),
        (encoded("L", "JPEG", progressive=True)[:-2] + b"\xff\xda\0\x08" * 2**23, "scans, too many"),
        (bytes(2**26 + 1), "larger than 64 MiB"),
    ],
)
def test_what_is_no_image_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        decode_image(data, 32)


@given(st.sampled_from([encoded("P"), encoded("RGB", "JPEG", 6)]), st.data())
def test_any_damage_gives_an_image_or_a_data_error(original: bytes, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(original) - 1))
    damaged = original[:place] + data.draw(st.binary(max_size=8)) + original[place + 4 :]
    with contextlib.suppress(DataError):
        assert decode_image(damaged, 8).shape == (8, 8, 3)


# ---- metadata -------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", [0x010E, 0x011A, 0x0128, 0x8769, 0x8825, 0x9286, 0xA005])
@pytest.mark.parametrize("kind", [*range(14), 65_535])
def test_an_odd_exif_tag_changes_nothing(tag: int, kind: int) -> None:
    plain = encoded("RGB", "JPEG")
    for count, value in ((1, 0), (1, 2**32 - 1), (2**31, 26), (5, 3)):
        odd = exif((0x0112, 3, 1, 6 << 16), (tag, kind, count, value))
        turned = decode_image(with_segment(plain, 0xE1, odd), 32)
        np.testing.assert_array_equal(turned, decode_image(encoded("RGB", "JPEG", 6), 32))


@pytest.mark.parametrize("orientation", [(3, 1, 9 << 16), (3, 1, 0), (2, 1, 6 << 24), (3, 2, 6 << 16), (12, 1, 6)])
def test_an_orientation_that_makes_no_sense_is_none(orientation: tuple[int, int, int]) -> None:
    plain = encoded("RGB", "JPEG")
    odd = with_segment(plain, 0xE1, exif((0x0112, *orientation)))
    np.testing.assert_array_equal(decode_image(odd, 32), decode_image(plain, 32))


@pytest.mark.parametrize("size", range(26))
def test_exif_that_is_cut_off_turns_nothing(size: int) -> None:
    plain = encoded("RGB", "JPEG")
    cut = with_segment(plain, 0xE1, exif((0x0112, 3, 1, 6 << 16))[:size])
    np.testing.assert_array_equal(decode_image(cut, 32), decode_image(plain, 32))


@pytest.mark.parametrize(
    ("marker", "content"),
    [
        (0xE0, b"JFIF\0"),
        (0xE0, b"JFIF\0\1\1\1\0\0\0\0\0\0"),
        (0xE2, b"ICC_PROFILE\0"),
        (0xE2, b"ICC_PROFILE\0\1\1" + bytes(40)),
        (0xE2, b"MPF\0" + b"\xff" * 40),
        (0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
        (0xEE, b"Adobe"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='6'"),
    ],
)
def test_other_metadata_of_a_jpeg_changes_nothing(marker: int, content: bytes) -> None:
    plain = encoded("RGB", "JPEG")
    np.testing.assert_array_equal(decode_image(with_segment(plain, marker, content), 32), decode_image(plain, 32))


@pytest.mark.parametrize(
    "odd",
    [
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**21))),
        chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(2**21))),
        chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**21))),
        chunk(b"iCCP", b"a\0\7nonsense"),
        chunk(b"pHYs", b""),
        chunk(b"gAMA", b""),
        chunk(b"acTL", b""),
        chunk(b"tEXt", b"a\0b")[:-1] + b"\0",
        chunk(b"eXIf", b"MM\0*"),
        chunk(b"IHDR", struct.pack(">IIBBBBB", 9**9, 9**9, 8, 2, 0, 0, 0)),
    ],
)
def test_other_metadata_of_a_png_changes_nothing(odd: bytes) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3))
    np.testing.assert_array_equal(decode_image(drawn(pixels, 2, 8, odd), 32), decode_image(drawn(pixels, 2, 8), 32))


@pytest.mark.parametrize(
    "error", [TypeError("x"), AttributeError("x"), IndexError("x"), MemoryError(), RecursionError()]
)
def test_whatever_a_decoder_raises_is_a_data_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(DataError, match=f"the image is broken .*({error or type(error).__name__})"):
        decode_image(encoded(), 32)


# ---- size -----------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("strip", [1, 300, 2**16])
def test_strips_give_what_the_whole_picture_gives(
    orientation: int, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "STRIP_PIXELS", strip)
    data = encoded("L", "PNG", orientation)
    whole = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    expected = whole.resize((32, whole.height), Image.Resampling.BILINEAR).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(decode_image(data, 32), expected)
    np.testing.assert_array_equal(open_image(data, 100), whole)
    assert open_image(data, 30).size == ((20, 30) if orientation >= 5 else (30, 20))


@pytest.mark.parametrize(("width", "height", "scale"), [(640, 512, 4), (500, 255, 1), (256, 256, 2), (4000, 1024, 8)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_decoded_at_a_reduced_size_of_at_least_twice_the_models(
    width: int, height: int, scale: int, orientation: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    reduced = Image.open(io.BytesIO(file.getvalue()))
    reduced.draft("RGB", (width // scale, height // scale))
    assert reduced.size == (-(-width // scale), -(-height // scale))
    whole: Image.Image = reduced if orientation == 1 else reduced.transpose(Image.Transpose.ROTATE_270)
    expected = whole.resize((64, whole.height), Image.Resampling.BILINEAR).resize((64, 64), Image.Resampling.BILINEAR)
    jpeg = with_segment(file.getvalue(), 0xE1, exif((0x0112, 3, 1, orientation << 16)))
    np.testing.assert_array_equal(decode_image(jpeg, 64), expected)


PEAK = """
import sys
from pathlib import Path
from common.learning.decoding import decode_image, read_image_file

def status(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])

small, *large = map(Path, sys.argv[1:])
decode_image(small.read_bytes(), 128)
for path in large:
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    decode_image(read_image_file(path), 128)
    print(path.name, status("VmHWM") - before)
"""


def test_the_largest_files_take_less_memory_than_the_limit_says(tmp_path: Path) -> None:
    def blank(mode: str, side: int, suffix: str, **options: Any) -> None:
        Image.new(mode, (side, side)).save(tmp_path / f"{mode}-{side}{suffix}", **options)

    blank("RGBA", 5500, ".png", compress_level=1)
    (tmp_path / "wide.png").write_bytes(drawn(np.broadcast_to(np.uint16(7), (3900, 3900, 4)), 6, 16))
    blank("RGB", 4600, ".jpg", progressive=True, subsampling=0)
    blank("CMYK", 3900, ".jpg", progressive=True)
    large = sorted(tmp_path.iterdir())
    (tmp_path / "small").write_bytes(encoded())
    arguments = [sys.executable, "-c", PEAK, str(tmp_path / "small"), *map(str, large)]
    child = subprocess.run(arguments, capture_output=True, text=True, check=True)
    peaks = [int(line.split()[1]) for line in child.stdout.splitlines()]
    assert len(peaks) == len(large)
    assert all(50e6 < peak < decoding.MAX_MEMORY for peak in peaks), child.stdout
