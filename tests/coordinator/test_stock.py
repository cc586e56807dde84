"""What a coordinator holds ready for devices, and what it does about files that are damaged or of another account."""

import os
import resource
from pathlib import Path

import msgspec
import pytest

from common.blobs import BlobStore
from common.config import TransferConfig
from common.errors import DataError
from common.messages import Chunk, Ref, Want, decode
from coordinator.budgets import Budgets
from coordinator.config import CoordinatorConfig
from coordinator.descriptors import raise_limit
from coordinator.distributor import Distributor
from coordinator.stock import Stock
from coordinator.store import Release, Store

CHUNK = 4096
BODY = os.urandom(3 * CHUNK)
ACCOUNT = 54321


class Wire:
    """Records what a Link would publish."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def room(self) -> int:
        return 1000

    def publish(self, _topic: str, payload: bytes) -> None:
        self.chunks.append(decode(payload, Chunk))


def add(blobs: BlobStore, folder: Path, body: bytes = BODY) -> Ref:
    draft = folder / "draft.tmp"
    draft.write_bytes(body)
    return blobs.add(draft, None, CHUNK)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def models(config: CoordinatorConfig, journal: Store) -> BlobStore:
    models = BlobStore(config.global_models)
    journal.set_global_model(add(models, config.folder))
    return models


@pytest.fixture
def distributor(wire: Wire) -> Distributor:
    return Distributor("brain", TransferConfig(), wire)  # type: ignore[arg-type]  # all that it needs of a Link


@pytest.fixture
def stock(config: CoordinatorConfig, journal: Store, models: BlobStore, distributor: Distributor) -> Stock:
    return Stock(config, journal, models, distributor)


def release(config: CoordinatorConfig, journal: Store, created: float = 1.0) -> Release:
    ref = add(BlobStore(config.releases), config.folder, b"TFLite" * 3000)
    found = Release(release=f"r1-{ref.id[:8]}", model=ref, round=1, labels=("no", "yes"), created=created)
    journal.add_release(found)
    return found


def ask(distributor: Distributor, ref: Ref) -> None:
    distributor.gather(Want(device="rpi1", blob=ref.id, chunks=b"\xff" * 2), 0.0, Budgets())
    distributor.release(frozenset({"rpi1"}), 0.0)
    distributor.publish()


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [damage, Path.unlink, lambda path: path.write_bytes(b"short")])
@pytest.mark.parametrize("suffix", ["body", "head"])
def test_a_damaged_release_is_left_out_and_told_until_it_is_exported_again(
    config: CoordinatorConfig, journal: Store, stock: Stock, harm: object, suffix: str
) -> None:
    bad = release(config, journal)
    harm(config.releases / f"{bad.model.id}.{suffix}")  # type: ignore[operator]
    stock.offer(None)
    assert stock.release() is None
    assert f"Release {bad.release} cannot be offered" in stock.trouble
    assert "export --release" in stock.trouble
    good = release(config, journal, created=2.0)
    assert stock.offer(None)
    assert (stock.release(), stock.trouble) == (good, "")


def test_a_release_that_is_damaged_while_it_is_served_ends_no_coordinator(
    config: CoordinatorConfig, journal: Store, stock: Stock, distributor: Distributor, wire: Wire
) -> None:
    bad = release(config, journal)
    stock.offer(None)
    ask(distributor, bad.model)
    sent = len(wire.chunks)
    damage(config.releases / f"{bad.model.id}.body")
    ask(distributor, bad.model)  # a device that could not use what came asks again
    assert bad.model.id not in {chunk.blob for chunk in wire.chunks[sent:] if chunk.index >= sent - 1}
    stock.offer(None)
    assert "is damaged" in stock.trouble
    assert journal.global_model() == stock.model()


def test_a_damaged_global_model_is_named_at_the_start(journal: Store, stock: Stock, models: BlobStore) -> None:
    stock.check(None)
    damage(models.body(stock.model().id))
    with pytest.raises(DataError, match=r"the global model cannot be used: .*body: the file is damaged.*from a backup"):
        stock.check(None)
    assert journal.global_model() is not None


def test_a_global_model_that_is_damaged_in_a_round_is_named_when_a_device_asks_again(
    stock: Stock, models: BlobStore, distributor: Distributor
) -> None:
    stock.offer(None)
    ask(distributor, stock.model())
    damage(models.body(stock.model().id))
    ask(distributor, stock.model())
    with pytest.raises(DataError, match="the global model cannot be used"):
        stock.offer(None)


def test_what_is_whole_is_published_as_often_as_it_is_asked_for(
    stock: Stock, distributor: Distributor, wire: Wire
) -> None:
    stock.offer(None)
    ask(distributor, stock.model())
    first = [msgspec.structs.asdict(chunk) for chunk in wire.chunks]
    ask(distributor, stock.model())
    assert [msgspec.structs.asdict(chunk) for chunk in wire.chunks] == first * 2


def test_files_that_root_made_are_only_read(config: CoordinatorConfig, journal: Store, stock: Stock) -> None:
    """The modes are those of a file of root's for another account: it may be read and not be written."""
    release(config, journal)
    seen: list[int] = []
    opened = os.open

    def watched(path: Path, flags: int, mode: int = 0o777) -> int:
        seen.append(flags & os.O_ACCMODE)
        return opened(path, flags, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.blobs.os.open", watched)
        stock.check(None)
        stock.offer(None)
    assert stock.trouble == ""
    assert set(seen) == {os.O_RDONLY}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another account")
def test_what_root_writes_below_the_state_folder_belongs_to_the_folders_owner(
    config: CoordinatorConfig, journal: Store
) -> None:
    journal.close()
    os.chown(config.folder, ACCOUNT, ACCOUNT)
    for path in config.folder.iterdir():
        os.chown(path, ACCOUNT, ACCOUNT)
    store = Store(config.journal)
    release(config, store)
    store.ask_for(1)
    strangers = [path for path in config.folder.rglob("*") if path.stat().st_uid != ACCOUNT]
    store.close()
    assert not strangers


def test_the_coordinator_may_open_as_many_files_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        assert raise_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
