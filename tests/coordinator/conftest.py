"""A coordinator's state folder, and rounds that the real state machine played into its journal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import yaml

from common.messages import Metrics, Offer, Ref
from coordinator import round as rounds
from coordinator.config import CoordinatorConfig, read_config
from coordinator.events import Accepted, Aggregated, CheckedIn, Delivered, Event, Failed, Offered, Tick
from coordinator.round_state import Phase, Round
from coordinator.store import Store
from tests.rounds import digest, open_round, plan_of

Play = Callable[..., Round]
TRAFFIC = (9_100_000, 18_200_000)
EXAMPLES = {"rpi1": 60, "rpi2": 30}
"""Those of all other devices are 10."""


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "coordinator.yaml"
    plain = {"federation": "brain", "state": str(tmp_path / "state"), "model": {"name": "numpy"}}
    path.write_text(yaml.safe_dump(plain))
    return path


@pytest.fixture
def config(config_path: Path) -> CoordinatorConfig:
    return read_config(config_path)


@pytest.fixture
def journal(config: CoordinatorConfig) -> Iterator[Store]:
    store = Store(config.journal, create=True)
    yield store
    store.close()


@pytest.fixture
def play(journal: Store) -> Play:
    """Play a round into the journal, or into another connection to it: see `_play`."""

    def play(number: int = 1, store: Store = journal, **devices: object) -> Round:
        return _play(store, number, **devices)  # type: ignore[arg-type]  # its keywords

    return play


def _play(
    store: Store,
    number: int,
    *,
    reported: Mapping[str, Metrics] | None = None,
    failed: Mapping[str, str] | None = None,
    silent: Sequence[str] = (),
    goal: int | None = None,
    is_over: bool = True,
    run: int = 1,
) -> Round:
    """Let every device check in: the `reported` have metrics, the `failed` a reason.

    With no `goal` the round begins once they all have; two updates suffice.
    """
    reported, failed = reported or {}, failed or {}
    present = [*reported, *failed, *silent]
    plan = plan_of(number, model(number - 1))
    round_ = open_round(plan, goal=goal or len(present), minimum=2, selection_s=10, deadline_s=60)
    events: list[Event] = [CheckedIn(device=device) for device in present]
    events += [Accepted(device=device) for device in present]
    for device, metrics in reported.items():
        offer = _offer(round_, device, metrics)
        events += [Offered(offer=offer), Delivered(device=device, update=offer.update.id)]
    events += [Failed(device=device, reason=reason) for device, reason in failed.items()]
    for event in events:
        round_, _ = rounds.step(round_, event, 1.0)
        store.save(round_, run, TRAFFIC)
    if is_over:
        round_, _ = rounds.step(round_, Tick(), 1e6)
        if round_.phase is Phase.AGGREGATING:
            round_, _ = rounds.step(round_, Aggregated(result=model(number)), 1e6)
        store.save(round_, run, TRAFFIC)
    return round_


def model(number: int) -> Ref:
    """Name the global model that round `number` makes."""
    return Ref(id=f"{number:064x}", head_bytes=100, size=4096, chunk_bytes=4096)


def _offer(round_: Round, device: str, metrics: Metrics) -> Offer:
    place = sum(device.encode())
    update = Ref(id=f"{place:064x}", head_bytes=100, size=4096, chunk_bytes=4096)
    return Offer(
        device=device,
        round=round_.number,
        generation=round_.plan.generation,
        plan=digest(round_.plan),
        update=update,
        num_examples=EXAMPLES.get(device, 10),
        metrics=metrics,
    )
