"""CSVs as spreadsheets on any system write them."""

import contextlib
import unicodedata
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from common.learning.label_csv import read_label_csv

Form = Literal["NFC", "NFD"]
LABELS = ("no", "yes")
GOOD = [("no/a.png", 0), ("yes/b.png", 1)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    for name in ("no/a.png", "yes/b.png", "yes/two words.png", "no/back\\slash.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def read(site: Path, content: str | bytes, labels: tuple[str, str] = LABELS) -> list[tuple[str, int]]:
    path = site / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [(item.name, item.label) for item in read_label_csv(path, None, labels)]


@pytest.mark.parametrize(
    "text",
    [
        "file,label\r\nno\\a.png,no\r\nyes\\b.png,yes\r\n",
        'file, label\n"no/a.png", "no"\n"yes/b.png", "yes"\n',
        '"file" , "label"\n"no/a.png" ,no\n"yes/b.png"\t,"yes" \n',
        "file;label\nno/a.png;no\nyes/b.png;yes\n",
        '"file";"label"\n"no\\a.png";"no"\n"yes\\b.png";"yes"\n',
        "sep=;\r\nfile;label\r\nno/a.png;0\r\nyes/b.png;1\r\n",
        "file\tlabel\nno/a.png\tno\nyes/b.png\tyes\n",
        "file,label,,\nno/a.png,no,,\nyes/b.png,yes,,,,\n,,\n",
        "file,label,note\nno/a.png,no,\nyes/b.png,yes\n",
        "file,label\rno/a.png,no\ryes/b.png,yes\r",
        "\ufefffile,label\nno/a.png,NO\nyes/b.png, Yes \n",
        "file,label\n.\\no\\a.png,no\nyes\\..\\yes\\b.png,yes\n",
    ],
)
def test_a_csv_of_any_spreadsheet_is_read(site: Path, text: str) -> None:
    assert [label for _, label in read(site, text)] == [0, 1]
    assert [label for _, label in read(site, text.encode("utf-16"))] == [0, 1]


def test_a_backslash_that_is_part_of_a_name_is_left_there(site: Path) -> None:
    assert read(site, "file,label\nno\\a.png,0\nno/back\\slash.png,0\n") == [
        ("no/a.png", 0),
        ("no/back\\slash.png", 0),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,label\nC:\\scans\\yes\\b.png,yes\n", r"line 2: 'C:.*' is a path of another computer; write it from"),
        ("file,label\n\\\\nas\\scans\\b.png,yes\n", "line 2: .* is a path of another computer"),
        ("file,label\nYES/B.png,yes\n", "line 2: there is no file 'YES/B.png'"),
        ("file,label\nyes/B.png,yes\n", "line 2: .* there is 'b.png', which differs in upper and lower case"),
        ("sep=;\nfile;label\nno/x.png;no\n", "line 3: there is no file"),
        ("file,label\nno/\x01a.png,no\n", "line 2: there is no file"),
        (f"file,label\nno/{'x' * 300}.png,no\n", "line 2: there is no file"),
        ("file,label\n,no\n", "line 2: it names no file"),
        ("file,label\nno/a.png,\n", "line 2: it has 1 columns"),
        ("file,label\nno/a.png,no,more\n", "line 2: it has 3 columns"),
        ("file;label\nno/a.png,no\n", "line 2: it has 1 columns"),
        ("file,label\n\x00", "zero bytes"),
        (b"file,label\nno/\xfc.png,no\n", "save it as UTF-8"),
        ("file,label\n".encode("utf-16-le"), "zero bytes"),
        (b"\xff\xfef", "save it as UTF-8"),
        (b" " * (2**25 + 1), "larger than 32 MiB"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(site: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        read(site, text)


@pytest.mark.parametrize(("on_disk", "in_csv"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC"), ("NFD", "NFD")])
def test_names_are_compared_in_one_unicode_form(tmp_path: Path, on_disk: Form, in_csv: Form) -> None:
    name = "kopf-ü/schädel é.png"
    path = tmp_path / unicodedata.normalize(on_disk, name)
    path.parent.mkdir()
    path.write_bytes(b"x")
    row = unicodedata.normalize(in_csv, name).replace("/", "\\")
    ((found, label),) = read(tmp_path, f"file,label\n{row},Auffa\u0308llig\n", ("gesund", "auff\u00e4llig"))
    assert unicodedata.normalize("NFC", found) == name
    assert label == 1


def test_zero_and_one_mean_nothing_where_a_label_is_a_number(site: Path) -> None:
    assert read(site, "file,label\nno/a.png,0\nyes/b.png,2\n", ("0", "2")) == GOOD
    with pytest.raises(DataError, match=r"line 3: the label '1' is unknown; write '0' or '2'$"):
        read(site, "file,label\nno/a.png,0\nyes/b.png,1\n", ("0", "2"))
    with pytest.raises(DataError, match=r"write 'no' or 'yes', or 0 or 1$"):
        read(site, "file,label\nno/a.png,2\n")


@given(st.text(alphabet='filea,be;\t"\n\r\\/. np0\u0308x', max_size=80))
def test_any_text_gives_rows_or_one_sentence(site: Path, text: str) -> None:
    for content in (text, f"file,label\n{text}"):
        with contextlib.suppress(DataError):
            read(site, content)
