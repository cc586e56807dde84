"""One publish for every device: wishes for a blob are gathered, and their union goes out once. Pure."""

from dataclasses import dataclass, replace

from common.chunks import Layout, from_wire, lowest
from common.messages import Ref


@dataclass(frozen=True)
class Distribution:
    """A blob that devices may ask for. `wanted`: gathered, not yet released; `queued`: released, to be published."""

    ref: Ref
    layout: Layout
    wanted: int = 0
    waiting: frozenset[str] = frozenset()
    due_at: float = float("inf")
    queued: int = 0


def gather(distribution: Distribution, device: str, chunks: bytes, due_at: float) -> Distribution:
    """Add a device's wish; `due_at` is when to publish at the latest, if nothing is waiting yet."""
    bits = from_wire(chunks, distribution.layout.total) & ~distribution.queued
    return replace(
        distribution,
        wanted=distribution.wanted | bits,
        waiting=distribution.waiting | {device},
        due_at=min(distribution.due_at, due_at),
    )


def release(distribution: Distribution, present: frozenset[str], now: float) -> Distribution:
    """Queue what was gathered once every device that is present has asked, or the time has come."""
    if not distribution.waiting or not (present <= distribution.waiting or now >= distribution.due_at):
        return distribution
    queued = distribution.queued | distribution.wanted
    return replace(distribution, wanted=0, waiting=frozenset(), due_at=float("inf"), queued=queued)


def take(distribution: Distribution, count: int) -> tuple[Distribution, int]:
    """Take the next `count` chunks to publish: a bitmap."""
    chosen = lowest(distribution.queued, count)
    return replace(distribution, queued=distribution.queued & ~chosen), chosen
