"""What a device keeps on disk."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import WorkError
from common.messages import Offer, Ref, ReleaseStatus
from device.store import CurrentRelease, DeviceStore, current_release, good_release, keep_good

BODY = random.Random(3).randbytes(20_000)


def with_offer(folder: Path, number: int = 5) -> tuple[DeviceStore, Offer]:
    """A store in which a training has just ended."""
    store = DeviceStore(folder)
    store.update_draft.write_bytes(BODY)
    update = store.updates.add(store.update_draft, None, 4096, is_durable=False)
    offer = Offer(
        device="pi",
        round=number,
        generation="aa",
        plan="0" * 64,
        update=update,
        num_examples=3,
        metrics={"loss": 0.5},
    )
    store.keep_offer(offer)
    return store, offer


def release_of(store: DeviceStore, name: str = "r1", body: bytes = b"tflite") -> ReleaseStatus:
    """A release whose blob has arrived."""
    draft = store.folder / "draft"
    draft.write_bytes(body)
    model = store.models.add(draft, None, 4096)
    return ReleaseStatus(release=name, model=model, labels=("no", "yes"), round=3)


@pytest.mark.parametrize("is_secured", [True, False])
def test_a_finished_update_and_its_offer_survive_a_restart(tmp_path: Path, is_secured: bool) -> None:
    store, offer = with_offer(tmp_path)
    if is_secured:
        store.secure(offer)
    again = DeviceStore(tmp_path)
    assert again.offer() == offer
    assert again.updates.body(offer.update.id).read_bytes() == BODY


def test_a_fresh_store_has_no_offer(tmp_path: Path) -> None:
    assert DeviceStore(tmp_path / "new").offer() is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    torn=st.sampled_from(["offer.msgpack", "head", "body"]),
    cut=st.floats(0, 1, exclude_max=True),
    noise=st.binary(max_size=5),
)
def test_a_torn_file_costs_the_training_and_nothing_else(tmp_path: Path, torn: str, cut: float, noise: bytes) -> None:
    store, offer = with_offer(tmp_path)
    path = tmp_path / torn if torn == "offer.msgpack" else tmp_path / "updates" / f"{offer.update.id}.{torn}"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))] + noise)
    found = DeviceStore(tmp_path).offer()
    assert found is None or (found.update == offer.update and (torn == "offer.msgpack" or path.read_bytes() == whole))
    store.drop_update()


@pytest.mark.parametrize("lost", ["offer.msgpack", "head", "body"])
def test_a_lost_file_costs_the_training_and_nothing_else(tmp_path: Path, lost: str) -> None:
    _, offer = with_offer(tmp_path)
    path = tmp_path / lost if lost == "offer.msgpack" else tmp_path / "updates" / f"{offer.update.id}.{lost}"
    path.unlink()
    assert DeviceStore(tmp_path).offer() is None


def test_an_update_that_was_dropped_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, offer = with_offer(tmp_path)
    store.drop_update()
    assert DeviceStore(tmp_path).offer() is None
    assert list((tmp_path / "updates").iterdir()) == []
    store.drop_update()
    store.secure(offer)  # another thread comes too late: no harm
    assert not caplog.records


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    store, offer = with_offer(tmp_path)
    (tmp_path / "offer.msgpack").unlink()
    (tmp_path / "offer.msgpack").mkdir()
    with pytest.raises(WorkError, match=r"offer\.msgpack"):
        store.keep_offer(offer)


def test_a_release_is_installed_beside_the_last_good_one(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    assert current_release(tmp_path) is None
    first, second = release_of(store), release_of(store, "r2", b"better")
    store.install(first)
    assert store.has_installed(first)
    installed = current_release(tmp_path)
    assert installed == CurrentRelease("r1", ("no", "yes"), f"models/{first.model.id}.body")
    keep_good(tmp_path, installed)
    store.install(second)
    assert not store.has_installed(first)
    assert good_release(tmp_path) == installed
    assert DeviceStore(tmp_path).releases() == {first.model.id, second.model.id}


def test_the_same_model_under_another_name_is_another_release(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    store.install(release_of(store, "r1"))
    assert not store.has_installed(release_of(store, "r2"))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"release": 1}', b"\xff"])
def test_a_damaged_note_of_the_release_is_no_release(tmp_path: Path, content: bytes) -> None:
    DeviceStore(tmp_path)
    (tmp_path / "release.json").write_bytes(content)
    assert current_release(tmp_path) is None


def test_a_release_that_has_not_arrived_is_not_installed(tmp_path: Path) -> None:
    store = DeviceStore(tmp_path)
    missing = Ref(id="7" * 64, head_bytes=100, size=8, chunk_bytes=4096)
    with pytest.raises(WorkError):
        store.install(ReleaseStatus(release="r9", model=missing, labels=("no", "yes"), round=3))
    assert current_release(tmp_path) is None
