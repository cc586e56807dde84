"""The global model as files for people and, if wanted, as a release for the fleet."""

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import numpy as np

from common.blobs import BlobStore
from common.config import DataConfig
from common.errors import ConfigError, DataError, UsageError
from common.files import disk_error, hand_over, make_folder, write_atomic
from common.learning.export import Agreement, agreement
from common.learning.seam import FileLearner, Learner, Variant, load
from common.messages import Ref
from common.verified import read_verified
from common.weights import Tensor, difference, unpack
from coordinator.config import CoordinatorConfig
from coordinator.outcome import read_best
from coordinator.store import Release, Store
from coordinator.wording import count, size

if TYPE_CHECKING:
    from rich.console import Console

Tell: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class GlobalModel:
    """The global weights, and the round that made them: 0 for the initial model."""

    ref: Ref
    round: int
    weights: list[Tensor]


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """What an export wrote. `size` in bytes and `sha256` are the TFLite file's; no agreement without images."""

    round: int
    model: str
    tflite: str
    keras: str
    size: int
    sha256: str
    agreement: Agreement | None
    variant: Variant = "float32"
    release: str | None = None


def export(learner: Learner, model: GlobalModel, data: DataConfig, folder: Path, tell: Tell) -> Export:
    """Write `model.tflite` and `model.keras` into `folder`, and measure how far they agree on the images of `data`.

    `tell` hears what is being done. Raises DataError for images that cannot be used, WorkError where the
    learner cannot convert or the disk fails.
    """
    has_images = bool(data.images or data.labels or data.unseen or data.loader)
    tell("converting")
    try:
        make_folder(folder)
        tflite = learner.export(model.weights, folder)
        keras, content = tflite.with_suffix(".keras"), tflite.read_bytes()
        for path in (tflite, keras):
            hand_over(path, like=folder)
    except OSError as error:
        raise disk_error(f"{folder}: cannot write the model", error) from error
    if has_images:
        tell("comparing both on the coordinator's images")
    return Export(
        round=model.round,
        model=model.ref.id,
        tflite=str(tflite),
        keras=str(keras),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        agreement=_agreement(learner, model.weights, data, tflite, tell) if has_images else None,
    )


def convert(exported: Export, learner: Learner, model: GlobalModel, data: DataConfig, variant: Variant) -> Export:
    """Replace the TFLite file by another variant of the model, which takes and gives the same numbers.

    int8 is calibrated on the images of `data` that are trained on. Raises ConfigError where there are none or the
    learner knows no variants, DataError for images that cannot be used, WorkError for a model that has no such form.
    """
    if not isinstance(learner, FileLearner):
        raise UsageError("--variant: this model has no other TFLite form than the one that its learner writes")
    if exported.agreement is None:
        raise ConfigError("--variant: no images to calibrate and compare with; name some in 'data'")
    images = load(data, learner.image_size).train.images
    content = learner.convert(model.weights, variant, images)
    write_atomic(Path(exported.tflite), content)
    return msgspec.structs.replace(
        exported,
        variant=variant,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        agreement=_agreement(learner, model.weights, data, Path(exported.tflite)),
    )


def publish(exported: Export, model: GlobalModel, config: CoordinatorConfig, store: Store) -> Export:
    """Make the exported TFLite file the release of the fleet: a running coordinator announces it at once.

    Its chunks are no larger than the global model's, which were cut to what the broker carries. Raises WorkError.
    """
    copy = config.folder / "release.tmp"
    try:
        shutil.copyfile(exported.tflite, copy)
    except OSError as error:
        raise disk_error(f"{copy}: cannot copy the release there", error) from error
    ref = BlobStore(config.releases).add(copy, None, min(config.transfer.chunk_bytes, model.ref.chunk_bytes))
    release = Release(
        release=f"r{model.round}-{ref.id[:8]}",
        model=ref,
        round=model.round,
        labels=config.data.label_names,
        created=time.time(),
    )
    store.add_release(release)
    return msgspec.structs.replace(exported, release=release.release)


def read_global(store: Store, blobs: BlobStore, learner: Learner, *, is_best: bool = False) -> GlobalModel:
    """Read the global weights, the newest or the best, also while a running coordinator replaces them.

    Raises ConfigError where there are none yet or `learner` is another model, DataError where they are damaged.
    """
    find = _best if is_best else _newest
    while True:
        ref, number = find(store)
        try:
            spec, content = blobs.head(ref).spec or (), read_verified(blobs.body(ref.id))
        except DataError:
            if find(store)[0] == ref:
                raise
            continue
        if find(store)[0] == ref:
            break
    if (reason := difference(spec, learner.spec())) is not None:
        raise ConfigError(f"what 'model' describes is not the global model: {reason}; set 'model' as it was")
    return GlobalModel(ref, number, unpack(spec, content))


def _newest(store: Store) -> tuple[Ref, int]:
    """Return the global model, and the round that made it."""
    if (ref := store.global_model()) is None:
        raise ConfigError("there is no global model yet: a coordinator makes it when it is first served")
    return ref, store.last_committed()


def _best(store: Store) -> tuple[Ref, int]:
    """Return the model with the best validation metric, and the round that made it: one before that was measured."""
    if (best := read_best(store.fact("best"))) is None:
        raise ConfigError("no round was measured on validation images; set training.validation_share and run rounds")
    return best.model, store.last_committed(before=best.round)


def _agreement(
    learner: Learner, weights: list[Tensor], data: DataConfig, tflite: Path, tell: Tell = lambda _: None
) -> Agreement:
    site = load(data, learner.image_size)
    if site.skipped:
        tell(f"{count(len(site.skipped), 'file')} left out, the first: {site.skipped[0]}")
    images = np.concatenate([site.train.images, site.unseen.images])
    return agreement(learner.predict(weights, images), tflite, images)


def show(exported: Export, console: "Console") -> None:
    """Print what an export wrote."""
    what = f"the global model of round {exported.round}" if exported.round else "the initial model"
    console.print(f"{exported.tflite}: {size(exported.size)}, {what}")
    console.print(exported.keras)
    if (found := exported.agreement) is not None:
        told = f"largest difference {found.max_difference:.2g}, another label on {found.other_labels}"
        style = "red" if found.other_labels else "green"
        console.print(f"TFLite against Keras on {count(found.images, 'image')}: {told}", style=style)
    if exported.release:
        console.print(f"Release {exported.release}: a running coordinator offers it to every device now.")
