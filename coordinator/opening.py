"""The journal of a configuration: opened for a command, or made for the first coordinator on a state folder."""

from pathlib import Path

from common.errors import ConfigError
from common.files import state_error
from coordinator.config import CoordinatorConfig
from coordinator.store import Store


def open_journal(config: CoordinatorConfig) -> Store:
    """Open the journal of a coordinator that was served before.

    Raises ConfigError where there is none or this account may not use it, DataError where it is damaged, WorkError.
    """
    _refuse_loss(config)
    return Store(config.journal)


def make_journal(config: CoordinatorConfig) -> Store:
    """Open the journal to serve by it, made if need be.

    Raises ConfigError where it is gone although there are models, DataError where it is damaged, WorkError.
    """
    _refuse_loss(config)
    return Store(config.journal, create=True)


def _refuse_loss(config: CoordinatorConfig) -> None:
    """Refuse a journal that is gone or empty beside models: a new one would begin another federation."""
    try:
        is_lost = not config.journal.exists() or config.journal.stat().st_size == 0
        if is_lost and _has_models(config.global_models):
            raise ConfigError(
                f"{config.journal} is gone or empty, but {config.global_models} holds a global model: put the journal"
                f" back from a backup, or move {config.folder} away to begin a new federation"
            )
    except OSError as error:
        raise state_error(f"{config.journal}: cannot open the journal", error) from error


def _has_models(folder: Path) -> bool:
    return next(folder.glob("*.body"), None) is not None
