"""Federations made out of one folder: near copies on one side, the same split everywhere."""

import csv
import json
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageEnhance, ImageOps

from common.config import DataConfig, convert
from common.errors import ConfigError, DataError, WorkError
from common.learning.images import load_site
from coordinator import splitting
from coordinator.cli import main as coordinator
from coordinator.dataset.split import SplitOptions, SplitReport, split
from coordinator.dataset.synthetic import draw_slices

pytestmark = pytest.mark.slow

PARTS = ("coordinator", "rpi1", "rpi1_unseen", "rpi2", "rpi2_unseen")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve slices a label; of every third, four changed copies under names that hide their origin."""
    folder = tmp_path_factory.mktemp("images")
    draw_slices(folder, 12, 11)
    for number, path in enumerate(sorted(folder.rglob("*.png"))[::3]):
        image = Image.open(path).convert("RGB")
        below = path.parent
        (below / f"copy {number}.png").write_bytes(path.read_bytes())
        image.resize((97, 101)).save(below / f"{number} small.JPG", "JPEG", quality=60)
        ImageOps.mirror(image).save(below / f"a{number}.jpeg")
        ImageEnhance.Contrast(image.resize((300, 300))).enhance(1.4).save(below / f"z{number}.png")
    return folder


@pytest.fixture(scope="module")
def report(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[SplitReport, Path]:
    out = tmp_path_factory.mktemp("split")
    return split(folder, out, SplitOptions()), out


def rows(out: Path, part: str) -> list[tuple[str, str]]:
    with (out / f"{part}.csv").open(newline="", encoding="utf-8") as file:
        return [(row["file"], row["label"]) for row in csv.DictReader(file)]


def test_near_copies_are_found_and_stay_on_one_side(folder: Path, report: tuple[SplitReport, Path]) -> None:
    found, out = report
    assert (found.files, found.groups, found.largest_group) == (56, 24, 5)
    assert (found.exact_copies, found.near_copies) == (8, 24)
    assert found.contradictions == ()
    sides = {file: part for part in PARTS for file, _ in rows(out, part)}
    assert len(found.twins) == 8
    for twins in found.twins:
        originals = [name for name in twins if "synthetic" in name]
        assert len(originals) == 1
        assert len({sides[name] for name in twins}) == 1
    assert len(sides) == len(list(folder.rglob("*.*")))


def test_every_image_goes_to_one_part_and_labels_are_spread(report: tuple[SplitReport, Path]) -> None:
    found, out = report
    assert tuple(part.name for part in found.parts) == PARTS
    assert sum(part.images for part in found.parts) == found.files
    for part in found.parts:
        listed = rows(out, part.name)
        assert part.images == len(listed)
        assert part.labels == {label: sum(row[1] == label for row in listed) for label in ("no", "yes")}
        assert all(part.labels.values())
    assert 0.5 < found.parts[0].images / found.files < 0.75


def test_each_part_loads_as_a_site(folder: Path, report: tuple[SplitReport, Path]) -> None:
    _, out = report
    data = DataConfig(images=str(folder), labels=str(out / "rpi1.csv"), unseen=str(out / "rpi1_unseen.csv"))
    site = load_site(data, 32)
    assert len(site.train) == len(rows(out, "rpi1"))
    assert len(site.unseen) == len(rows(out, "rpi1_unseen"))
    assert site.skipped == ()


def test_the_report_is_kept_beside_the_csvs(report: tuple[SplitReport, Path]) -> None:
    found, out = report
    assert msgspec.json.decode((out / "split.json").read_bytes(), type=SplitReport) == found


def test_the_same_seed_gives_the_same_files_in_any_place_and_directory_order(
    folder: Path, report: tuple[SplitReport, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "moved"
    for path in sorted(folder.rglob("*.*"), reverse=True):
        (moved / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        (moved / path.relative_to(folder)).write_bytes(path.read_bytes())
    ordered = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: sorted(ordered(self, pattern), reverse=True))
    split(moved, tmp_path / "again", SplitOptions())
    for name in (*(f"{part}.csv" for part in PARTS), "split.json"):
        assert (tmp_path / "again" / name).read_bytes() == (report[1] / name).read_bytes(), name


def test_another_seed_gives_another_split(folder: Path, report: tuple[SplitReport, Path], tmp_path: Path) -> None:
    split(folder, tmp_path, SplitOptions(seed=1))
    assert rows(tmp_path, "rpi1") != rows(report[1], "rpi1")


def test_shares_and_sites_are_free(folder: Path, tmp_path: Path) -> None:
    options = convert({"shares": [0, 0.5, 0.5], "sites": ["a", "b"], "unseen_share": 0}, SplitOptions, "test")
    found = split(folder, tmp_path, options)
    assert [part.name for part in found.parts] == ["a", "b"]
    assert abs(found.parts[0].images - found.parts[1].images) <= 6
    assert not (tmp_path / "coordinator.csv").exists()


def test_broken_files_are_named_and_in_no_part(tmp_path: Path) -> None:
    draw_slices(tmp_path / "images", 8, 0, 64)
    (tmp_path / "images" / "no" / "broken.png").write_bytes(b"no image")
    (tmp_path / "images" / "yes" / "two\nlines.png").write_bytes(b"")
    found = split(tmp_path / "images", tmp_path / "out", SplitOptions())
    assert found.files == 16
    assert [sentence.split(":")[0] for sentence in found.skipped] == [
        "no/broken.png",
        r"'yes/two\nlines.png'",
    ]


def test_twins_with_both_labels_stay_together_and_are_told(tmp_path: Path) -> None:
    draw_slices(tmp_path / "images", 8, 0, 64)
    twin = (tmp_path / "images" / "no" / "synthetic_no_003.png").read_bytes()
    (tmp_path / "images" / "yes" / "twin.png").write_bytes(twin)
    found = split(tmp_path / "images", tmp_path / "out", SplitOptions())
    assert found.contradictions == (("no/synthetic_no_003.png", "yes/twin.png"),)
    names = [{file for file, _ in rows(tmp_path / "out", part)} for part in PARTS]
    assert sum({"no/synthetic_no_003.png", "yes/twin.png"} <= side for side in names) == 1


def test_too_few_images_for_every_part_is_a_clear_error(tmp_path: Path) -> None:
    draw_slices(tmp_path / "images", 3, 0, 64)
    with pytest.raises(DataError, match=r"6 different images leave none labelled 'no' for rpi\w+; add images"):
        split(tmp_path / "images", tmp_path / "out", SplitOptions())
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_single_image_is_a_clear_error(tmp_path: Path) -> None:
    for label in ("no", "yes"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "readme.txt").write_text("nothing here")
    with pytest.raises(DataError, match=r"0 different images \(2 files skipped\)"):
        split(tmp_path, tmp_path / "out", SplitOptions())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (SplitOptions(shares=(0.6, 0.4)), "give 3, one each for coordinator, rpi1, rpi2"),
        (SplitOptions(shares=(0.6, 0.2, 0.3)), "add up to 1"),
        (SplitOptions(shares=(1.2, -0.1, -0.1)), "must not be negative"),
        (SplitOptions(unseen_share=1.0), "unseen_share"),
        (SplitOptions(sites=("a", "a")), "name each site once"),
        (SplitOptions(sites=("a", "../b")), "not a valid name"),
    ],
)
def test_options_that_cannot_be_are_named(options: SplitOptions, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=sentence):
        split(tmp_path, tmp_path, options)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: there is no such folder"):
        split(tmp_path / "nowhere", tmp_path, SplitOptions())


def test_parts_get_their_share_of_images_whatever_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for label, count in (("no", 20), ("yes", 30)):
        (tmp_path / label).mkdir()
        for index in range(count):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / label / f"{index}.png")
    monkeypatch.setattr(
        "coordinator.dataset.split.fingerprint",
        lambda _: rng.choice(np.array([-1, 1], np.float32), (1, 8, 512)),
    )
    for seed in range(20):
        found = split(tmp_path, tmp_path / "out", SplitOptions(seed=seed))
        assert [part.images for part in found.parts] == [30, 6, 4, 6, 4]


def test_splitting_says_how_far_it_is(tmp_path: Path) -> None:
    draw_slices(tmp_path / "images", 8, 0, 64)
    told: list[str] = []
    split(tmp_path / "images", tmp_path / "split", SplitOptions(), told.append)
    assert told[:2] == ["0 of 16 images read", "1 of 16 images read"]
    assert told[-1].endswith("of 16 images compared with the others")


def test_without_a_terminal_a_line_now_and_then_says_how_far_splitting_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splitting, "EVERY_S", 0.0)
    draw_slices(tmp_path / "images", 8, 0, 64)
    done = CliRunner().invoke(coordinator, ["split", str(tmp_path / "images"), "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    assert "16 of 16" not in done.stderr
    assert f"looking for near copies in {tmp_path / 'images'}: 9 of 16 images read\n" in done.stderr
    assert json.loads(done.stdout)["files"] == 16


@pytest.mark.process
def test_many_files_are_looked_at_by_several_processes_and_grouped_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_slices(tmp_path / "images", 8, 0, 64)
    (tmp_path / "images" / "no" / "broken.png").write_bytes(b"no image")
    one = split(tmp_path / "images", tmp_path / "one", SplitOptions())
    monkeypatch.setattr("coordinator.dataset.split.MANY", 4)
    assert split(tmp_path / "images", tmp_path / "many", SplitOptions()) == one
    assert len(one.skipped) == 1


def end(_item: object) -> None:
    """End this process, as the kernel does where memory is short."""
    os._exit(1)


@pytest.mark.process
def test_a_process_that_ends_by_itself_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_slices(tmp_path / "images", 8, 0, 64)
    monkeypatch.setattr("coordinator.dataset.split.MANY", 4)
    monkeypatch.setattr("coordinator.dataset.split._look_at", end)
    with pytest.raises(WorkError, match="ended by itself"):
        split(tmp_path / "images", tmp_path / "out", SplitOptions())
