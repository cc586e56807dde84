"""What a device tells of its hardware. Pure."""

from typing import Annotated, Literal

import msgspec

Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Flag = Literal[
    "under-voltage",
    "frequency-capped",
    "throttled",
    "temperature-limited",
    "was-under-voltage",
    "was-frequency-capped",
    "was-throttled",
    "was-temperature-limited",
]
"""What the firmware of a Raspberry Pi reports: now, and `was-`: at some time since the boot, as far as it remembers."""


class Health(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a machine is. What it cannot tell is nil: a PC knows nothing of under-voltage, an SD card of its wear."""

    temperature_c: Annotated[float, msgspec.Meta(ge=-100, le=300)] | None = None
    flags: Annotated[tuple[Flag, ...], msgspec.Meta(max_length=8)] | None = None
    memory_free_bytes: Bytes | None = None
    """What programs may still take without swapping."""
    disk_free_bytes: Bytes | None = None
    """Where the device keeps its state."""
    load: Annotated[float, msgspec.Meta(ge=0, le=1e6)] | None = None
    """Load average of the last minute, divided by the number of processor cores."""
    card_life_used: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    """Share of the memory card's life that is used up, at most: 0 to 1, above 1 where it has outlived it."""
    card_state: Literal["normal", "warning", "urgent"] | None = None
    """The card's spare blocks: `warning` when 80 % are used up, `urgent` at 90 % (JEDEC eMMC, PRE_EOL_INFO)."""
    clock_synchronised: bool | None = None
    unfit: Annotated[str, msgspec.Meta(max_length=500)] = ""
    """Why the device sits rounds out, nothing where it does not."""
