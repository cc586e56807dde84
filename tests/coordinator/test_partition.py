"""Skewed federations, and the layout that copies the images."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.config import DataConfig
from common.errors import ConfigError, DataError
from common.learning.images import load_site
from common.learning.layouts import Where, find
from coordinator.dataset.partition import Skew, label_shares
from coordinator.dataset.split import SplitOptions, SplitReport, split

SITES = tuple(f"site{place}" for place in range(10))
EVEN = {"coordinator": 0.2, **dict.fromkeys(SITES, 0.06), **{f"{site}_unseen": 0.02 for site in SITES}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """160 different small images; hashing them is left out."""
    rng = np.random.default_rng(0)
    for label, count in (("no", 60), ("yes", 100)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{index:03d}.png")
    monkeypatch.setattr(
        "coordinator.dataset.split.fingerprint", lambda _: rng.choice(np.array([-1, 1], np.float32), (1, 8, 512))
    )
    return tmp_path / "images"


def positive_shares(report: SplitReport) -> list[float]:
    return [part.labels["yes"] / part.images for part in report.parts if part.name in {"rpi1", "rpi2", "rpi3", "rpi4"}]


@pytest.mark.parametrize("skew", ["none", "labels", "quantity"])
def test_no_skew_touches_the_sum_or_the_coordinator(skew: Skew) -> None:
    for shares in label_shares(EVEN, SITES, skew, (7, 0.5)):
        assert sum(shares.values()) == pytest.approx(1)
        assert shares["coordinator"] == 0.2
        for site in SITES:
            assert shares[f"{site}_unseen"] == pytest.approx(shares[site] / 3)


def test_a_label_skew_draws_each_label_by_itself_a_quantity_skew_both_together() -> None:
    negative, positive = label_shares(EVEN, SITES, "labels", (7, 0.5))
    assert any(abs(negative[site] - positive[site]) > 0.03 for site in SITES)
    negative, positive = label_shares(EVEN, SITES, "quantity", (7, 0.5))
    assert negative == positive != EVEN


def test_the_smaller_alpha_the_further_apart() -> None:
    def reach(alpha: float) -> float:
        shares = [label_shares(EVEN, SITES, "labels", (seed, alpha))[0] for seed in range(20)]
        return float(np.mean([np.std([found[site] for site in SITES]) for found in shares]))

    assert reach(0.1) > 2 * reach(1) > 4 * reach(100)


def test_a_seed_gives_the_same_shares_and_another_seed_others() -> None:
    first = label_shares(EVEN, SITES, "labels", (7, 0.5))
    assert label_shares(EVEN, SITES, "labels", (7, 0.5)) == first
    assert label_shares(EVEN, SITES, "labels", (8, 0.5)) != first


def test_sites_of_a_skewed_split_differ_and_none_lacks_a_label(folder: Path, tmp_path: Path) -> None:
    sites = ("rpi1", "rpi2", "rpi3", "rpi4")
    shares = (0.2, 0.2, 0.2, 0.2, 0.2)
    even = split(folder, tmp_path / "even", SplitOptions(sites=sites, shares=shares))
    assert np.ptp(positive_shares(even)) < 0.1
    skewed = split(folder, tmp_path / "skewed", SplitOptions(sites=sites, shares=shares, skew="labels", alpha=0.3))
    assert np.ptp(positive_shares(skewed)) > 0.3
    assert all(all(part.labels.values()) for part in skewed.parts)
    sized = split(folder, tmp_path / "sized", SplitOptions(sites=sites, shares=shares, skew="quantity", alpha=0.5))
    sizes = [part.images for part in sized.parts if part.name in sites]
    assert max(sizes) > 2 * min(sizes)
    assert np.ptp(positive_shares(sized)) < 0.35
    again = split(folder, tmp_path / "again", SplitOptions(sites=sites, shares=shares, skew="labels", alpha=0.3))
    assert again == skewed


def test_an_alpha_that_cannot_be_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        split(folder, tmp_path / "out", SplitOptions(alpha=0))


def test_twins_may_be_parted_as_a_blind_split_does(folder: Path, tmp_path: Path) -> None:
    for number in range(60, 100):  # forty exact copies of one image
        (folder / "yes" / f"{number:03d}.png").write_bytes((folder / "yes" / "000.png").read_bytes())

    def sides(keep_twins: bool) -> int:
        out = tmp_path / str(keep_twins)
        report = split(folder, out, SplitOptions(keep_twins=keep_twins))
        twins = next(names for names in report.twins if "yes/000.png" in names)
        assert len(twins) == 41
        listed = {part.name: (out / f"{part.name}.csv").read_text().split() for part in report.parts}
        return sum(any(f"{name},yes" in lines for name in twins) for lines in listed.values())

    assert (sides(True), sides(False)) == (1, 5)


# ---- the first forerunner's layout -----------------------------------------------------------


@pytest.fixture
def tree(folder: Path, tmp_path: Path) -> Path:
    (folder / "yes" / "deep").mkdir()
    (folder / "yes" / "000.png").rename(folder / "yes" / "deep" / "000.png")
    split(folder, tmp_path / "out", SplitOptions(sites=("rasp1", "rasp2"), layout="folders"))
    return tmp_path / "out"


def test_the_layout_of_folders_has_the_names_that_its_users_know(tree: Path) -> None:
    names = {"main_data.csv", "rasp1_data.csv", "rasp2_data.csv", "rasp1_unseen.csv", "rasp2_unseen.csv"}
    assert {path.name for path in tree.glob("*.csv")} == names
    assert {path.name for path in (tree / "data").iterdir()} == {
        "main", "rasp1", "rasp2", "rasp1_unseen", "rasp2_unseen",
    }  # fmt: skip
    with (tree / "main_data.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list((tree / "data" / "main").rglob("*.png"))) > 80
    assert all((tree / row["file"]).is_file() and row["file"].split("/")[2] == row["label"] for row in rows)
    assert len(list((tree / "data").rglob("*.png"))) == 160


def test_what_the_splitter_wrote_is_read_again(tree: Path) -> None:
    site = load_site(find(Where(tree, "rasp1")), 8)
    assert (len(site.train), len(site.unseen)) == tuple(
        len(list((tree / "data" / name).rglob("*.png"))) for name in ("rasp1", "rasp1_unseen")
    )
    assert not set(site.train.names) & set(site.unseen.names)
    assert not len(load_site(find(Where(tree, "main")), 8).unseen)


def test_the_folders_are_read_without_their_csvs_as_well(tree: Path) -> None:
    listed = load_site(find(Where(tree, "rasp1")), 8)
    for path in tree.glob("*.csv"):
        path.unlink()
    found = load_site(find(Where(tree, "rasp1")), 8)
    assert (len(found.train), len(found.unseen)) == (len(listed.train), len(listed.unseen))


def test_a_second_split_leaves_nothing_of_the_first(tree: Path, folder: Path) -> None:
    (tree / "data" / "main" / "yes" / "old.png").write_bytes(b"")
    split(folder, tree, SplitOptions(sites=("rasp1", "rasp2"), layout="folders", seed=1))
    assert len(list((tree / "data").rglob("*.png"))) == 160


# ---- other layouts that are read -------------------------------------------------------------


def test_train_and_val_with_a_folder_a_label(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    folder.rename(tmp_path / "set" / "train")
    for label in ("no", "yes"):
        below = tmp_path / "set" / "val" / label
        below.mkdir(parents=True)
        (tmp_path / "set" / "train" / label / "001.png").rename(below / "001.png")
    site = load_site(find(Where(tmp_path / "set")), 8)
    assert (len(site.train), len(site.unseen)) == (158, 2)


def test_a_csv_with_other_names_of_its_columns(folder: Path) -> None:
    lines = [",image_path,Class", "0,yes/003.png,1", "1,no/003.png,0"]
    (folder / "list.csv").write_text("\n".join(lines))
    site = load_site(find(Where(folder / "list.csv")), 8)
    assert site.train.names == ("no/003.png", "yes/003.png")
    assert site.train.labels.tolist() == [0, 1]


def test_our_own_csvs_name_images_elsewhere(folder: Path, tmp_path: Path) -> None:
    split(folder, tmp_path / "ours", SplitOptions())
    data = find(Where(tmp_path / "ours", "rpi1", images=folder))
    assert data == DataConfig(
        images=str(folder),
        labels=str(tmp_path / "ours" / "rpi1.csv"),
        unseen=str(tmp_path / "ours" / "rpi1_unseen.csv"),
    )
    assert len(load_site(data, 8).train) > 10


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        (Where(Path("nowhere")), "nowhere: there is no such folder or CSV"),
        (Where(Path(), "rpi9"), r"it has no rpi9_data\.csv, rpi9\.csv, data/rpi9 or rpi9; correct --data or --site"),
        (Where(Path()), "it has neither train/ nor the folders no and yes"),
    ],
)
def test_what_is_not_there_is_said(
    where: Where, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=sentence):
        find(where)


def test_a_csv_without_a_label_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,kind\na.png,yes\n")
    with pytest.raises(DataError, match="the header is 'path,kind'"):
        load_site(find(Where(tmp_path / "list.csv")), 8)
