"""Every deliberate error says whose fault it is, and so what to do about it."""

from common.plain_text import printable


class FedpiError(Exception):
    """An expected error: its text is one sentence for a person, and the CLI exits with `exit_code`.

    The text may hold names from files and peers: it is made printable, in one line.
    """

    exit_code = 1

    def __init__(self, text: str = "") -> None:
        super().__init__(printable(text))


class ConfigError(FedpiError):
    """The operator's configuration or command is wrong: stop; a restart would not help (EX_CONFIG)."""

    exit_code = 78


class UsageError(ConfigError):
    """A command was called with wrong arguments (the code is that of click's own usage errors)."""

    exit_code = 2


class DataError(FedpiError):
    """An image folder, CSV, weight file or model file cannot be used: name it and stop (EX_DATAERR)."""

    exit_code = 65


class LinkError(FedpiError):
    """The broker cannot be reached or refuses us: back off and try again (EX_UNAVAILABLE)."""

    exit_code = 69


class WorkError(FedpiError):
    """A training, evaluation or conversion failed: report it and stay available (EX_SOFTWARE)."""

    exit_code = 70


class DiskFullError(WorkError):
    """The disk takes no data: it is full, read-only or fails. Wait until it does (EX_SOFTWARE).

    `state` says which, as what is wrong with a device.
    """

    def __init__(self, text: str, state: str = "its disk is full") -> None:
        super().__init__(text)
        self.state = state


class PeerError(FedpiError):
    """A message from the wire breaks the protocol: drop it, count it, go on."""

    exit_code = 76


class FalseHeadError(PeerError):
    """A blob's head does not have the digest that names it: a part of it is not what the sender has."""


class UnusableHeadError(PeerError):
    """A blob's head has the digest that names it, and is no head of that blob: asking again changes nothing."""
