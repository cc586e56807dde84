"""Sites loaded from folders and CSVs, with the odd files that real data holds."""

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
from PIL import Image

from common.config import DataConfig
from common.errors import ConfigError, DataError
from common.learning.images import (
    decode_image,
    find_images,
    load_site,
    open_image,
    read_label_csv,
    write_label_csv,
)
from common.learning.seam import load

GRADIENT = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2
LABELS = ("no", "yes")


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


def write(folder: Path, *names: str, data: bytes | None = None) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded() if data is None else data)
    return folder


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write(tmp_path / "site", "no/b.png", "no/a.png", "yes/c.png", "yes/d.png")


def config(folder: Path, **more: str) -> DataConfig:
    return DataConfig(images=str(folder), **more)  # type: ignore[arg-type]  # only strings are passed here


def table(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


# ---- decoding -------------------------------------------------------------------------------


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


# ---- folders --------------------------------------------------------------------------------


def test_a_folder_a_label_is_a_site(site: Path) -> None:
    loaded = load(config(site), 16)
    assert loaded.train.images.shape == (4, 16, 16, 3)
    assert loaded.train.labels.tolist() == [0, 0, 1, 1]
    assert loaded.train.names == ("no/a.png", "no/b.png", "yes/c.png", "yes/d.png")
    assert len(loaded.unseen) == 0


def test_suffix_case_and_spaces_do_not_matter(tmp_path: Path) -> None:
    write(tmp_path, "No/1 no.JPG", "YES/scan 2.jpeg", "YES/deep/3", "YES/.hidden.png", "pred/4.png")
    assert load_site(config(tmp_path), 8).train.names == ("No/1 no.JPG", "YES/deep/3", "YES/scan 2.jpeg")


def test_files_are_sorted_whatever_the_order_of_the_directory(tmp_path: Path) -> None:
    write(tmp_path, "c", "a/z", "B", "a.png")
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == [
        "B",
        "a.png",
        "a/z",
        "c",
    ]


def test_a_broken_and_an_empty_file_are_named_and_skipped(site: Path) -> None:
    write(site, "no/0.png", data=b"")
    write(site, "yes/x.jpg", data=b"\xff\xd8\xff broken")
    loaded = load_site(config(site), 8)
    assert len(loaded.train) == 4
    assert [sentence.split(":")[0] for sentence in loaded.skipped] == ["no/0.png", "yes/x.jpg"]
    assert "empty" in loaded.skipped[0]


def test_a_site_without_a_usable_image_names_the_first_problem(tmp_path: Path) -> None:
    write(tmp_path, "no/a.png", "yes/b.png", data=b"text")
    with pytest.raises(DataError, match=r"no usable image.*no/a\.png: it is neither"):
        load_site(config(tmp_path), 8)


def test_a_site_with_one_class_only_names_the_missing_one(site: Path) -> None:
    write(site, "yes/c.png", "yes/d.png", data=b"broken")
    with pytest.raises(DataError, match="labelled 'no'; add some of 'yes'"):
        load_site(config(site), 8)


def test_a_folder_without_a_label_folder_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder 'yes'"):
        load_site(config(write(tmp_path, "no/a.png")), 8)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (DataConfig(), "data.images: not set"),
        (DataConfig(images="nowhere"), "no folder nowhere"),
        (DataConfig(images="x" * 300), "x: File name too long; correct the path"),
        (DataConfig(labels="nowhere.csv"), "data.labels: there is no CSV nowhere.csv"),
        (DataConfig(unseen="nowhere.csv"), "data.unseen: there is no CSV or folder nowhere.csv"),
        (DataConfig(images=".", label_names=("no", "NO")), "data.label_names"),
    ],
)
def test_a_wrong_setting_is_named(data: DataConfig, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load_site(data, 8)


# ---- CSVs -----------------------------------------------------------------------------------


def test_a_csv_may_use_names_or_numbers_and_paths_of_either_folder(site: Path, tmp_path: Path) -> None:
    write(tmp_path, "beside.png")
    labels = table(tmp_path / "l.csv", "\ufeffFile, Label\nyes/c.png,1\n\nbeside.png,NO\nno/a.png,no\n")
    loaded = load_site(config(site, labels=labels), 8)
    assert loaded.train.names == ("beside.png", "no/a.png", "yes/c.png")
    assert loaded.train.labels.tolist() == [0, 0, 1]


def test_a_written_csv_reads_back(site: Path, tmp_path: Path) -> None:
    write(site, 'no/odd, "name".png')
    write_label_csv(tmp_path / "deep" / "l.csv", [("yes/d.png", "yes"), ('no/odd, "name".png', "no")])
    items = read_label_csv(tmp_path / "deep" / "l.csv", site, LABELS)
    assert [(item.name, item.label) for item in items] == [('no/odd, "name".png', 0), ("yes/d.png", 1)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,label\nno/a.png,0\nno/gone.png,0\n", "line 3: there is no file 'no/gone.png'"),
        ("file,label\n,0\n", "line 2: there is no file ''"),
        ("file,label\nno/a.png,maybe\n", "line 2: the label 'maybe' is unknown; write 'no' or 'yes'"),
        ("file,label\nno/a.png,0\nyes/../no/a.png,1\n", "line 3: .* already stands in line 2"),
        ("no/a.png,0\n", "line 1: the header is"),
        ("", "line 1: the header is ''"),
        ("file,label\nno/a.png\n", "line 2: it has 1 columns"),
        ('file,label\n"no/a.png,0\n', "it is no CSV"),
    ],
)
def test_a_wrong_csv_names_file_and_line(site: Path, tmp_path: Path, text: str, sentence: str) -> None:
    labels = table(tmp_path / "l.csv", text)
    with pytest.raises(DataError, match=f"l.csv.*{sentence}"):
        load_site(config(site, labels=labels), 8)


def test_a_csv_that_is_no_text_is_refused(site: Path) -> None:
    with pytest.raises(DataError, match="no CSV in UTF-8"):
        load_site(config(site, labels=str(site / "no" / "a.png")), 8)


# ---- unseen ---------------------------------------------------------------------------------


def test_unseen_images_are_left_out_of_the_training_folder(site: Path, tmp_path: Path) -> None:
    unseen = table(tmp_path / "u.csv", "file,label\nno/b.png,0\n")
    loaded = load_site(config(site, unseen=unseen), 8)
    assert loaded.train.names == ("no/a.png", "yes/c.png", "yes/d.png")
    assert loaded.unseen.names == ("no/b.png",)


def test_unseen_images_may_be_a_folder_of_their_own(site: Path, tmp_path: Path) -> None:
    unseen = write(tmp_path / "other", "no/n.png", "yes/y.png")
    loaded = load_site(config(site, unseen=str(unseen)), 8)
    assert len(loaded.train) == 4
    assert loaded.unseen.labels.tolist() == [0, 1]


def test_a_csv_that_trains_on_an_unseen_image_is_refused(site: Path, tmp_path: Path) -> None:
    labels = table(tmp_path / "l.csv", "file,label\nno/a.png,0\nyes/c.png,1\n")
    unseen = table(tmp_path / "u.csv", "file,label\nyes/c.png,1\n")
    with pytest.raises(DataError, match=r"l\.csv: 'yes/c\.png' is unseen too"):
        load_site(config(site, labels=labels, unseen=unseen), 8)


def test_unseen_images_that_are_all_broken_are_an_error(site: Path, tmp_path: Path) -> None:
    unseen = write(tmp_path / "other", "no/n.png", "yes/y.png", data=b"")
    with pytest.raises(DataError, match="no usable unseen image"):
        load_site(config(site, unseen=str(unseen)), 8)


def test_decoding_loads_neither_tensorflow_nor_scikit_learn(site: Path) -> None:
    code = (
        "import sys; import common.learning.images as i; assert 'PIL' not in sys.modules;"
        f"i.load_site(i.DataConfig(images={str(site)!r}), 8);"
        "assert not {'tensorflow', 'keras', 'sklearn', 'scipy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
