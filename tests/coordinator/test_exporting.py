"""Exports and releases, with a learner that converts to nothing in particular, and once with the real one."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from common.blobs import BlobStore
from common.chunks import layout_of
from common.config import DataConfig, TransferConfig
from common.errors import ConfigError, DataError, WorkError
from common.learning.numpy_learner import NumpyLearner, NumpyOptions
from common.learning.seam import build
from common.messages import Chunk, Ref, Want, decode
from common.verified import read_verified
from common.weights import Tensor, pack
from coordinator import exporting
from coordinator.budgets import Budgets
from coordinator.cli import main
from coordinator.config import CoordinatorConfig, read_config
from coordinator.dataset.synthetic import draw_slices
from coordinator.distributor import Distributor
from coordinator.exporting import GlobalModel, export, publish, read_global
from coordinator.outcome import Best
from coordinator.round_state import Round
from coordinator.store import Store

Play = Callable[..., Round]
TFLITE = b"not really a TFLite model" * 400


class Converter(NumpyLearner):
    """Converts every model to the same bytes."""

    def export(self, weights: list[Tensor], folder: Path) -> Path:
        assert len(weights) == len(self.spec())
        (folder / "model.keras").write_bytes(b"keras")
        (folder / "model.tflite").write_bytes(TFLITE)
        return folder / "model.tflite"


@pytest.fixture
def learner() -> Converter:
    return Converter(NumpyOptions(tensors=3, parameters=3000))


def keep(config: CoordinatorConfig, store: Store, learner: NumpyLearner, seed: int, chunk_bytes: int = 4096) -> Ref:
    """Make the learner's weights of `seed` the global model."""
    draft = config.folder / "draft.tmp"
    draft.write_bytes(pack(learner.spec(), learner.initial(seed)))
    ref = BlobStore(config.global_models).add(draft, learner.spec(), chunk_bytes)
    store.set_global_model(ref)
    return ref


def silent(_step: str) -> None:
    pass


def test_the_best_model_is_exported_under_the_round_that_made_it(
    config: CoordinatorConfig, journal: Store, play: Play, learner: Converter
) -> None:
    blobs = BlobStore(config.global_models)
    with pytest.raises(ConfigError, match=r"set training\.validation_share"):
        read_global(journal, blobs, learner, is_best=True)
    for number in (1, 2, 3):
        play(number, reported={"rpi1": {}, "rpi2": {}})
    better = keep(config, journal, learner, seed=1)
    best = Best(metric="global_validation_loss", value=0.1, round=3, model=better)
    journal.set_fact("best", msgspec.json.encode(best).decode())
    keep(config, journal, learner, seed=2)
    model = read_global(journal, blobs, learner, is_best=True)
    assert (model.ref, model.round) == (better, 2)


def test_export_names_its_files_and_the_round(
    config: CoordinatorConfig, journal: Store, play: Play, learner: Converter, tmp_path: Path
) -> None:
    play(1, reported={"rpi1": {}, "rpi2": {}})
    play(2, silent=["rpi1", "rpi2"])
    ref = keep(config, journal, learner, seed=1)
    model = read_global(journal, BlobStore(config.global_models), learner)
    for tensor, initial in zip(model.weights, learner.initial(1), strict=True):
        np.testing.assert_array_equal(tensor, initial)
    found = export(learner, model, DataConfig(), tmp_path / "out", silent)
    assert (found.round, found.model) == (1, ref.id)
    assert Path(found.tflite).read_bytes() == TFLITE
    assert Path(found.keras).read_bytes() == b"keras"
    assert (found.size, found.sha256) == (len(TFLITE), hashlib.sha256(TFLITE).hexdigest())
    assert (found.agreement, found.release) == (None, None)


def test_model_that_is_replaced_while_it_is_read_is_read_anew(
    config: CoordinatorConfig, journal: Store, learner: Converter, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(config, journal, learner, seed=1)
    blobs = BlobStore(config.global_models)

    def read_late(body: Path) -> bytes:
        monkeypatch.setattr(exporting, "read_verified", read_verified)
        newer = keep(config, journal, learner, seed=2)
        blobs.keep([newer.id])  # as the service does once a round is committed
        return read_verified(body)

    monkeypatch.setattr(exporting, "read_verified", read_late)
    model = read_global(journal, blobs, learner)
    assert model.ref == journal.global_model()
    np.testing.assert_array_equal(model.weights[0], learner.initial(2)[0])


def test_damaged_model_is_an_error_not_an_endless_loop(
    config: CoordinatorConfig, journal: Store, learner: Converter
) -> None:
    blobs = BlobStore(config.global_models)
    body = blobs.body(keep(config, journal, learner, seed=1).id)
    body.write_bytes(b"\xff" * body.stat().st_size)
    with pytest.raises(DataError, match="damaged"):
        read_global(journal, blobs, learner)


def test_other_model_in_the_configuration_is_named(
    config: CoordinatorConfig, journal: Store, learner: Converter
) -> None:
    keep(config, journal, learner, seed=1)
    other = Converter(NumpyOptions(tensors=4, parameters=3000))
    with pytest.raises(ConfigError, match="it has 4 tensors where the global model has 3; set 'model' as it was"):
        read_global(journal, BlobStore(config.global_models), other)


def test_export_before_the_first_model_is_told_what_is_missing(
    config: CoordinatorConfig, journal: Store, learner: Converter
) -> None:
    with pytest.raises(ConfigError, match="there is no global model yet"):
        read_global(journal, BlobStore(config.global_models), learner)


def test_folder_that_cannot_be_written_is_named(learner: Converter, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    model = GlobalModel(Ref(id="0" * 64, head_bytes=1, size=1, chunk_bytes=4096), 0, learner.initial(0))
    with pytest.raises(WorkError, match=r"file: cannot make the folder"):
        export(learner, model, DataConfig(), tmp_path / "file", silent)


# ---- releases -------------------------------------------------------------------------------


@pytest.fixture
def released(config: CoordinatorConfig, journal: Store, learner: Converter, tmp_path: Path) -> exporting.Export:
    keep(config, journal, learner, seed=1, chunk_bytes=8192)
    model = read_global(journal, BlobStore(config.global_models), learner)
    return publish(export(learner, model, DataConfig(), tmp_path / "out", silent), model, config, journal)


def test_release_is_in_the_journal_and_its_bytes_where_nobody_tidies_up(
    config: CoordinatorConfig, journal: Store, released: exporting.Export
) -> None:
    release = journal.newest_release()
    assert release is not None
    assert release.release == released.release == f"r0-{release.model.id[:8]}"
    assert (release.round, release.labels) == (0, ("no", "yes"))
    assert release.model.chunk_bytes == 8192  # what the broker is known to carry
    BlobStore(config.global_models).keep([])  # whatever the service deletes there
    assert BlobStore(config.releases).body(release.model.id).read_bytes() == TFLITE
    assert Path(released.tflite).read_bytes() == TFLITE
    assert not list(config.folder.glob("*.tmp"))


def test_same_model_released_again_is_the_same_release(
    config: CoordinatorConfig, journal: Store, learner: Converter, released: exporting.Export
) -> None:
    model = read_global(journal, BlobStore(config.global_models), learner)
    again = publish(released, model, config, journal)
    assert again.release == released.release


class Wire:
    """Records what a Link would publish."""

    def __init__(self) -> None:
        self.published: list[bytes] = []

    def room(self) -> int:
        return 1000

    def publish(self, _topic: str, payload: bytes) -> None:
        self.published.append(payload)


@pytest.mark.usefixtures("released")
def test_devices_get_model_and_release_each_from_its_own_folder(config: CoordinatorConfig, journal: Store) -> None:
    release, ref = journal.newest_release(), journal.global_model()
    assert release is not None
    assert ref is not None
    models, releases, wire = BlobStore(config.global_models), BlobStore(config.releases), Wire()
    distributor = Distributor("brain", TransferConfig(), wire)  # type: ignore[arg-type]  # all that it needs of a Link
    distributor.offer([(ref, models), (release.model, releases)])
    for blob in (ref, release.model):
        distributor.gather(Want(device="rpi1", blob=blob.id, chunks=b"\xff" * 10), 0.0, Budgets())
    distributor.release(frozenset({"rpi1"}), 0.0)
    distributor.publish()
    chunks: list[Chunk] = [decode(payload, Chunk) for payload in wire.published]
    for blob, body in ((ref, models.body(ref.id)), (release.model, releases.body(release.model.id))):
        heads = layout_of(blob).head_chunks
        data = [chunk.data for chunk in chunks if chunk.blob == blob.id and chunk.index >= heads]
        assert b"".join(data) == body.read_bytes()


# ---- the command, with TensorFlow -----------------------------------------------------------


@pytest.mark.tensorflow
def test_real_model_is_exported_compared_and_released(tmp_path: Path) -> None:
    draw_slices(tmp_path / "images", 6, seed=0, size=48)
    path = tmp_path / "coordinator.yaml"
    plain: dict[str, Any] = {
        "federation": "brain",
        "state": str(tmp_path / "state"),
        "model": {"name": "simple_cnn", "options": {"image_size": 32}},
        "data": {"images": str(tmp_path / "images")},
    }
    path.write_text(yaml.safe_dump(plain))
    config = read_config(path)
    store = Store(config.journal, create=True)
    keep(config, store, build(config.model, {}), seed=3)  # type: ignore[arg-type]  # any learner will do

    arguments = ["export", "--config", str(path), "--out", str(tmp_path / "out"), "--release", "--json"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = msgspec.convert(json.loads(result.stdout), exporting.Export)
    assert (tmp_path / "out/model.keras").stat().st_size > 10_000
    assert found.size == (tmp_path / "out/model.tflite").stat().st_size > 10_000
    assert found.agreement is not None
    assert (found.agreement.images, found.agreement.other_labels) == (12, 0)
    assert found.agreement.max_difference < 0.01
    release = store.newest_release()
    assert release is not None
    assert release.release == found.release

    result = CliRunner().invoke(main, [*arguments, "--variant", "int8"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    quantised = msgspec.convert(json.loads(result.stdout), exporting.Export)
    assert quantised.variant == "int8"
    assert quantised.size == (tmp_path / "out/model.tflite").stat().st_size < found.size / 2
    assert quantised.agreement is not None
    assert 1e-6 < quantised.agreement.max_difference < 0.05
    newest = store.newest_release()
    assert newest is not None
    assert newest.release == quantised.release != found.release


def test_a_model_without_other_forms_says_so(
    config: CoordinatorConfig, journal: Store, learner: Converter, tmp_path: Path
) -> None:
    keep(config, journal, learner, seed=1)
    model = read_global(journal, BlobStore(config.global_models), learner)
    found = export(learner, model, DataConfig(), tmp_path, silent)
    with pytest.raises(ConfigError, match="--variant: this model has no other TFLite form"):
        exporting.convert(found, learner, model, DataConfig(), "int8")
