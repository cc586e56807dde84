"""A coordinator whose disk is full or read-only: it says so, waits, and goes on from its journal."""

import logging
import shutil
import time

from common.blobs import BlobStore
from common.errors import DiskFullError
from common.files import see_writable
from common.notify import Pulse
from common.stopping import Stop
from coordinator.config import CoordinatorConfig
from coordinator.service import Service
from coordinator.store import Store

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often it looks whether there is room by now."""
SPARE_BYTES = 4 * 2**20
"""Room that it waits for beside that of one global model and one update: its journal needs some."""


def serve(config: CoordinatorConfig, store: Store, blobs: BlobStore, stop: Stop, *, takes_over: bool = False) -> None:
    """Serve until `stop` is set. What the journal holds outlives the pause: the round stays open, the model too.

    `takes_over`: whether another coordinator of the federation is to end for this one, now and not after a pause.
    Raises WorkError when the disk fails, ConfigError for another coordinator.
    """
    pulse = Pulse()
    while not stop.is_set():
        try:
            Service(config, store, blobs, pulse, takes_over=takes_over).serve(stop)
        except DiskFullError as error:
            takes_over = False
            log.warning("waits for room: %s", error)
            _wait(config, store, pulse, stop)
            log.info("goes on: there is room")


def _wait(config: CoordinatorConfig, store: Store, pulse: Pulse, stop: Stop) -> None:
    model = store.global_model()
    needed = SPARE_BYTES + 2 * (model.size if model else 0)
    while not stop.wait(LOOK_S) and (lacking := _lacking(config, needed)):
        pulse.beat(time.monotonic(), lacking)


def _lacking(config: CoordinatorConfig, needed: int) -> str:
    """Say what keeps the disk from taking `needed` bytes; nothing where it does."""
    if (free := shutil.disk_usage(config.folder).free) < needed:
        return f"Waits for room on its disk: {free >> 20} of {needed >> 20} MiB are free."
    try:
        see_writable(config.folder, is_tried=True)
    except DiskFullError as error:
        return f"Waits: {error.state}."
    return ""
