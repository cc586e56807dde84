from collections.abc import Callable
from pathlib import Path

import pytest

from device.serving import NOT_YET, Shelf, may_answer_on
from device.store import CurrentRelease, good_release

Install = Callable[..., CurrentRelease]
Model = Callable[..., bytes]
Png = Callable[[int], bytes]
OWN = "fedpi/2/brain/dev/rpi1/prediction"


def test_a_new_release_takes_the_place_of_the_old_one(tmp_path: Path, model: Model, png: Png, install: Install) -> None:
    shelf = Shelf(tmp_path, 1)
    assert shelf.look() is None
    assert shelf.classifier is None

    install(tmp_path, "r1", model(slope=0.05))
    assert shelf.look() == ("release-served", "release r1 is served from now on.")
    assert shelf.look() is None
    assert shelf.classifier is not None
    assert shelf.classifier.classify(png(255)).label == "yes"

    install(tmp_path, "r2", model(slope=-0.05))
    assert shelf.look() is not None
    assert shelf.classifier.release == "r2"
    assert shelf.classifier.classify(png(255)).label == "no"


def test_a_file_damaged_on_disk_keeps_the_old_release_and_is_left_to_be_fetched_again(
    tmp_path: Path, model: Model, install: Install
) -> None:
    shelf = Shelf(tmp_path, 1)
    install(tmp_path, "r1", model())
    shelf.look()
    before = shelf.classifier
    release = install(tmp_path, "r2", model(slope=0.2))
    body = tmp_path / release.file
    flip_a_bit(body)
    news = shelf.look()

    assert news is not None
    assert news[0] == "release-refused"
    assert "release r2 cannot be served, release r1 is served still" in news[1]
    assert shelf.classifier is before
    assert not body.exists()
    assert shelf.look() is None, "said once"

    flip_a_bit(body.with_suffix(".part"))
    body.with_suffix(".part").replace(body)
    assert shelf.look() == ("release-served", "release r2 is served from now on.")


def test_a_damaged_head_is_refused_too(tmp_path: Path, model: Model, install: Install) -> None:
    release = install(tmp_path, "r1", model())
    flip_a_bit((tmp_path / release.file).with_suffix(".head"))
    shelf = Shelf(tmp_path, 1)
    news = shelf.look()

    assert news is not None
    assert news[0] == "release-refused"
    assert shelf.classifier is None


def test_bytes_of_another_blob_under_the_name_are_refused(tmp_path: Path, model: Model, install: Install) -> None:
    other = tmp_path / install(tmp_path, "other", model(slope=0.5)).file
    body = tmp_path / install(tmp_path, "r1", model()).file
    body.write_bytes(other.read_bytes())
    body.with_suffix(".head").write_bytes(other.with_suffix(".head").read_bytes())
    news = Shelf(tmp_path, 1).look()

    assert news is not None
    assert news[0] == "release-refused"


def test_after_a_restart_the_last_release_that_worked_stands_in_for_a_broken_one(
    tmp_path: Path, model: Model, install: Install
) -> None:
    install(tmp_path, "r1", model())
    Shelf(tmp_path, 1).look()
    broken = install(tmp_path, "r2", b"whole, but no model")
    restarted = Shelf(tmp_path, 1)
    news = restarted.look()

    assert news is not None
    assert "release r1 is served still" in news[1]
    assert restarted.classifier is not None
    assert restarted.classifier.release == "r1"
    assert (tmp_path / broken.file).exists(), "fetching it again would not help"
    good = good_release(tmp_path)
    assert good is not None
    assert good.release == "r1"


def test_a_release_whose_file_is_not_here_is_waited_for(tmp_path: Path, model: Model, install: Install) -> None:
    body = tmp_path / install(tmp_path, "r1", model()).file
    away = body.rename(tmp_path / "away")
    shelf = Shelf(tmp_path, 1)

    assert shelf.look() is None
    assert shelf.reason == NOT_YET

    away.rename(body)
    assert shelf.look() is not None


@pytest.mark.parametrize(
    ("name", "is_allowed"),
    [
        (OWN, True),
        ("answers/42", True),
        ("/fedpi/2/brain/coord/round", True),
        ("fedpi", False),
        ("fedpi-wire", False),
        ("fedpi/2/brain/coord/round", False),
        ("fedpi/2/brain/dev/rpi2/prediction", False),
        ("fedpi-wire/2/brain/dev/rpi1/cmd", False),
        ("$SYS/broker", False),
        ("answers/#", False),
        ("answers/+/x", False),
        ("", False),
    ],
)
def test_an_answer_never_goes_below_our_roots(name: str, is_allowed: bool) -> None:
    assert may_answer_on(name, OWN) is is_allowed


def flip_a_bit(path: Path) -> None:
    """Damage the middle of the file, or mend it."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
