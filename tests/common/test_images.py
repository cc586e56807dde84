"""Sites loaded from folders and CSVs, with the odd files that real data holds."""

import io
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from common.config import DataConfig
from common.errors import ConfigError, DataError
from common.learning.folders import find_images
from common.learning.images import load_site
from common.learning.label_csv import read_label_csv, write_label_csv
from common.learning.seam import load

GRADIENT = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8) * 2
LABELS = ("no", "yes")


def encoded() -> bytes:
    file = io.BytesIO()
    Image.fromarray(GRADIENT).save(file, "PNG")
    return file.getvalue()


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
        ("file,label\n,0\n", "line 2: it names no file"),
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


@pytest.mark.parametrize(("on_disk", "given"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_configured_path_is_found_in_either_unicode_form(
    tmp_path: Path, on_disk: Literal["NFC", "NFD"], given: Literal["NFC", "NFD"]
) -> None:
    folder = write(tmp_path / unicodedata.normalize(on_disk, "Schädel/é"), "no/a.png", "yes/b.png")
    table(folder / "ü.csv", "file,label\nno/a.png,0\nyes/b.png,1\n")
    path = tmp_path / unicodedata.normalize(given, "Schädel/é")
    assert len(load_site(config(path), 8).train) == 2
    (folder / "ü.csv").rename(folder / unicodedata.normalize(on_disk, "ü.csv"))
    assert len(load_site(DataConfig(labels=str(path / unicodedata.normalize(given, "ü.csv"))), 8).train) == 2
