"""Options of a round, declared once: for the section `round` of the configuration, and for what the journal keeps."""

from typing import Annotated

import msgspec

from common.plan import RoundPlan

Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
WaitSeconds = Annotated[float, msgspec.Meta(gt=0, le=1e7)]


class RoundOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many devices a round wants and needs, how long it waits (seconds), and what one device may claim."""

    goal: Count = 2
    """Devices that a round begins with at once, when so many have checked in."""
    minimum: Count = 2
    """Devices that a round needs: to begin when `selection_s` is over, and to be committed."""
    selection_s: WaitSeconds = 120.0
    deadline_s: WaitSeconds = RoundPlan.__struct_defaults__[-1]
    """How long a round waits for updates after its invitations; a training may take as long."""
    grace_s: WaitSeconds = 30.0
    """A device whose upload advanced within this time holds the round open past its deadline, at most once as long."""
    max_examples: Count = 100_000
    max_offers: Count = 16
    """Different updates of a device in one round: one it is, and one more for each time that it trains anew."""
    max_update_norm: Annotated[float, msgspec.Meta(ge=0, le=1e30)] = 0.0
    """Largest L2 norm of an update, over all its tensors together; 0: any."""
