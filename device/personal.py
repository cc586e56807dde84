"""The tensors that stay on this device from round to round, one file a model."""

import hashlib
import io
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from common.files import write_atomic
from common.plan import ModelChoice
from common.weights import Tensor

log = logging.getLogger(__name__)


class PersonalLayers:
    """The personal tensors of `model`, by name, below `folder`: another model or other options begin anew."""

    def __init__(self, folder: Path, model: ModelChoice) -> None:
        self._path = folder / f"{hashlib.sha256(msgspec.json.encode(model)).hexdigest()[:16]}.npz"

    def read(self) -> dict[str, Tensor]:
        """Return what was kept: nothing at first or where the file is damaged, and the global values serve."""
        try:
            with np.load(self._path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            log.warning("%s: personal layers begin anew: %s", self._path, error)
            return {}

    def keep(self, tensors: Mapping[str, Tensor]) -> None:
        """Replace what was kept. Raises WorkError where the disk fails."""
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:  # as np.savez, which takes some names for its own options
            for name, tensor in tensors.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, tensor, allow_pickle=False)
        write_atomic(self._path, content.getvalue())
