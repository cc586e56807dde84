"""Packages that fedpi does not always need, by the extra of its own that brings them."""

from importlib.util import find_spec

from common.errors import ConfigError

EXTRAS = {
    "learning": ("tensorflow", "keras", "flatbuffers", "PIL", "sklearn", "h5py"),
    "inference": ("ai_edge_litert", "PIL"),
    "tools": ("imagehash", "matplotlib", "sklearn", "PIL", "tensorboardX", "h5py"),
    "metrics": ("prometheus_client",),
    "broker": ("iotcore",),
}


def advice(error: ImportError) -> str | None:
    """Return one sentence about a module of an extra that is not installed; None for any other."""
    module = (error.name or "").partition(".")[0]
    extras = [f"fedpi[{extra}]" for extra, modules in EXTRAS.items() if module in modules]
    return f"this needs the module '{module}': install {' or '.join(extras)} ({error})" if extras else None


def require(what: str, extra: str, *modules: str) -> None:
    """See that the modules of an extra are installed, before any work; raises ConfigError that says who needs them."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ConfigError(f"{what} needs {', '.join(missing)}: install fedpi[{extra}]")
