"""Folders as people have them: links, loops, what cannot be read, what Windows and others leave there."""

import os
import shutil
import socket
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from common.errors import ConfigError, DataError
from common.learning.folders import Found, alike, find_images, find_labelled, label_numbers

ROOT = Path(__file__).parents[2]
LABELS = ("no", "yes")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return fill(tmp_path / "site", "no/a.png", "no/b.png", "yes/c.png", "yes/deep/d.png")


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def names(found: Found) -> list[str]:
    return [item.name for item in found.items]


def test_a_linked_folder_and_a_linked_file_are_followed(site: Path, tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "e.png", "more/f.png")
    (site / "yes" / "link").symlink_to(tmp_path / "elsewhere")
    (site / "no" / "g.png").symlink_to(tmp_path / "elsewhere" / "e.png")
    found = find_labelled(site, LABELS)
    assert names(found) == [
        *("no/a.png", "no/b.png", "no/g.png"),
        *("yes/c.png", "yes/deep/d.png", "yes/link/e.png", "yes/link/more/f.png"),
    ]
    assert found.skipped == []


def test_a_label_may_be_a_link(site: Path, tmp_path: Path) -> None:
    (site / "yes").rename(tmp_path / "positive")
    (site / "yes").symlink_to(tmp_path / "positive")
    assert [item.label for item in find_labelled(site, LABELS).items] == [0, 0, 1, 1]


@pytest.mark.parametrize("target", [".", "..", "../..", "deep", "../no", "/"])
def test_a_link_to_what_is_read_already_or_lies_above_ends_nothing_and_is_named(site: Path, target: str) -> None:
    (site / "yes" / "0loop").symlink_to(target)
    found = find_labelled(site, LABELS)
    assert names(found) == ["no/a.png", "no/b.png", "yes/c.png", "yes/deep/d.png"]
    assert [sentence.partition(":")[0] for sentence in found.skipped] == ["yes/0loop"]
    assert "a link to a folder" in found.skipped[0]


def test_links_that_lead_to_each_other_end(site: Path, tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        fill(tmp_path / one, f"{one}.png")
        (tmp_path / one / "next").symlink_to(tmp_path / other)
    (site / "no" / "x").symlink_to(tmp_path / "a")
    found = find_labelled(site, LABELS)
    assert {"no/x/a.png", "no/x/next/b.png"} <= set(names(found))
    assert len(found.skipped) == 1


def test_a_link_to_nothing_or_itself_is_named(site: Path) -> None:
    (site / "no" / "gone.png").symlink_to("nowhere.png")
    (site / "yes" / "self").symlink_to("self")
    assert find_labelled(site, LABELS).skipped == [
        "no/gone.png: it is a link to nothing",
        "yes/self: it is a link that leads to itself",
    ]


def test_pipes_and_sockets_are_named_and_never_opened(site: Path) -> None:
    os.mkfifo(site / "no" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(site / "yes" / "s"))
        found = find_labelled(site, LABELS)
    assert [sentence.partition(":")[0] for sentence in found.skipped] == ["no/pipe.png", "yes/s"]
    assert len(found.items) == 4


def test_a_folder_that_may_not_be_read_is_named(site: Path) -> None:
    (site / "yes" / "deep").chmod(0)
    program = (
        f"from pathlib import Path; from common.learning.folders import find_labelled as f;"
        f"print(f(Path({str(site)!r}), {LABELS!r}).skipped)"
    )
    rights = "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"
    plain = [sys.executable, "-c", program]
    command = [shutil.which("setpriv") or "setpriv", *rights, *plain] if os.geteuid() == 0 else plain
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (site / "yes" / "deep").chmod(0o700)
    assert done.stdout.strip() == "['yes/deep: the folder cannot be read (Permission denied)']"


def test_what_windows_and_others_leave_is_passed_over(site: Path) -> None:
    fill(site, "no/Thumbs.db", "no/desktop.ini", "yes/Desktop.ini", "yes/.DS_Store", "Thumbs.db", "labels.csv")
    found = find_labelled(site, LABELS)
    assert len(found.items) == 4
    assert found.skipped == []


def test_what_lies_beside_the_labels_is_named_but_for_what_is_held_back(site: Path) -> None:
    fill(site, "pred/e.png", "f.JPG", "unseen/no/g.png")
    assert find_labelled(site, LABELS, apart=site / "unseen").skipped == [
        "f.JPG: it lies in no label's folder",
        "pred: the folder is that of no label (no, yes)",
    ]


def test_a_missing_label_folder_is_answered_with_those_that_are_there(tmp_path: Path) -> None:
    folder = fill(tmp_path, "no/a.png", "Yess/b.png")
    (folder / "yes").symlink_to("gone")
    with pytest.raises(DataError, match=r"no folder 'yes', but 'Yess', 'no', 'yes' \(a link to nothing\)"):
        find_labelled(folder, LABELS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no folder 'no', and no other"):
        find_labelled(tmp_path / "empty", LABELS)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_label_is_found_in_either_unicode_form(tmp_path: Path, form: Literal["NFC", "NFD"]) -> None:
    fill(tmp_path, "gesund/a.png", unicodedata.normalize("NFD" if form == "NFC" else "NFC", "Auffällig/b.png"))
    found = find_labelled(tmp_path, ("gesund", unicodedata.normalize(form, "auffällig")))
    assert [item.label for item in found.items] == [1, 0]


def test_a_very_deep_folder_is_read(tmp_path: Path) -> None:
    folder = "/".join(["d"] * 1200)
    deep = fill(tmp_path, "d/a.png")
    for _ in range(3):
        subprocess.run(["mkdir", "-p", folder], cwd=deep, check=True)
    assert [path.name for path in find_images(tmp_path)] == ["a.png"]


def test_names_that_cannot_be_printed_stay_in_their_line(site: Path) -> None:
    (site / "no" / os.fsdecode(b"t\xfcmor\n.png")).symlink_to("nowhere")
    (sentence,) = find_labelled(site, LABELS).skipped
    assert sentence == r"no/t\xfcmor .png: it is a link to nothing"


def test_zero_and_one_are_labels_only_where_no_name_is_a_number() -> None:
    assert label_numbers(("no", "yes")) == {"no": 0, "yes": 1, "0": 0, "1": 1}
    assert label_numbers(("0", "2")) == {"0": 0, "2": 1}
    assert label_numbers(("1", "0")) == {"1": 0, "0": 1}
    assert label_numbers(("-1", "yes")) == {"-1": 0, "yes": 1}
    with pytest.raises(ConfigError, match="stands there twice"):
        label_numbers(("é", unicodedata.normalize("NFD", "É")))
    assert alike("Straße") == alike("STRASSE")
