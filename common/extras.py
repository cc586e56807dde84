"""Packages that fedpi does not always need, and the extra of its own that brings each."""

_TRAINING, _SERVING, _TOOLS = "fedpi[learning]", "fedpi[inference]", "fedpi[tools]"
EXTRAS = {
    "tensorflow": _TRAINING,
    "keras": _TRAINING,
    "flatbuffers": _TRAINING,
    "PIL": f"{_TRAINING}, {_SERVING} or {_TOOLS}",
    "sklearn": f"{_TRAINING} or {_TOOLS}",
    "h5py": f"{_TRAINING} or {_TOOLS}",
    "ai_edge_litert": _SERVING,
    "imagehash": _TOOLS,
    "matplotlib": _TOOLS,
    "tensorboardX": _TOOLS,
    "prometheus_client": "fedpi[metrics]",
    "iotcore": "fedpi[broker]",
}
"""What to install for a module."""


def advice(error: ImportError) -> str | None:
    """Return one sentence about a module of an extra that is not installed; None for any other."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        return None
    return f"this needs the module '{module}': install {EXTRAS[module]} ({error})"
