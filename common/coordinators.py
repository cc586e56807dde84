"""What the coordinators of one federation ask each other, on `coord/peer`: two of them spoil each other's rounds.

`coordinator.rivals` says what they conclude. No device reads this topic.
"""

from typing import Literal, TypeAlias

from common.messages import Token
from common.packing import Wire

Stage: TypeAlias = Literal["starting", "taking-over", "running"]


class Probe(Wire, frozen=True, tag=True):
    """Is another coordinator of this federation here? `process` asks; `nonce` is drawn anew for each question."""

    process: Token
    nonce: Token


class Alive(Wire, frozen=True, tag=True):
    """I am: the answer of `process` to the question `nonce` of another one, whose nonce shows that it is no replay."""

    process: Token
    nonce: Token
    stage: Stage
