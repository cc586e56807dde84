"""What committed rounds leave behind, and that a crash at any point leaves the same."""

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from common.blobs import BlobStore
from common.errors import DiskFullError
from common.messages import Metrics, Ref
from common.weights import TensorSpec, pack
from coordinator.aggregation import Contribution
from coordinator.aggregator import Aggregator, Outcome
from coordinator.config import CoordinatorConfig, read_config
from coordinator.events import Aggregated, Cancelled
from coordinator.method import Method
from coordinator.outcome import Best, Moments, facts, read_best, read_moments
from coordinator.round import step
from coordinator.round_state import Member, Phase, Round, Standing
from coordinator.store import Store
from coordinator.strategies.fedadam import FedAdam
from tests.rounds import open_round, plan_of

SPEC = (TensorSpec("w", (1000,), "float32"),)
LOSS = "global_validation_loss"


def nothing(name: str) -> None:
    del name


def ref(number: int) -> Ref:
    return Ref(id=f"{number:064x}", head_bytes=100, size=4096, chunk_bytes=4096)


def closing(number: int, base: Ref, metrics: Metrics, method: Method | None = None) -> Round:
    """A round of two devices that only lacks its new model."""
    members = tuple(
        Member(device=device, standing=Standing.REPORTED, update=ref(900), num_examples=10, metrics=metrics)
        for device in ("a", "b")
    )
    opened = open_round(plan_of(number, base), method, goal=2, minimum=2, selection_s=10, deadline_s=10)
    return msgspec.structs.replace(opened, phase=Phase.AGGREGATING, members=members)


def best_after(*losses: float, metric: str = LOSS) -> Best | None:
    """Play rounds whose devices measure these values of `metric` on the round's base."""
    known: dict[str, str] = {}

    def fact(name: str) -> str | None:
        return known.get(name)

    for number, loss in enumerate(losses, 1):
        round_, _ = step(
            closing(number, ref(number - 1), {metric: loss}, Method(best_by=metric)),
            Aggregated(result=ref(number)),
            1.0,
        )
        known |= facts(round_, fact)
    return read_best(known.get("best"))


def test_the_best_model_is_the_one_that_devices_measured_best_before_they_trained_on() -> None:
    assert best_after(0.5, 0.3, 0.4) == Best(LOSS, 0.3, 2, ref(1))
    auc = "global_validation_auc"
    assert best_after(0.5, 0.3, 0.6, 0.6, metric=auc) == Best(auc, 0.6, 3, ref(2))


def test_without_a_validation_metric_there_is_no_best_model() -> None:
    round_, _ = step(closing(1, ref(0), {"global_loss": 0.1}), Aggregated(result=ref(1)), 1.0)
    assert "best" not in facts(round_, nothing)


def test_another_metric_begins_anew() -> None:

    def old(name: str) -> str | None:
        best = Best("global_validation_auc", 0.99, 1, ref(0))
        return msgspec.json.encode(best).decode() if name == "best" else None

    round_, _ = step(closing(2, ref(1), {LOSS: 5.0}), Aggregated(result=ref(2)), 1.0)
    assert read_best(facts(round_, old)["best"]) == Best(LOSS, 5.0, 2, ref(1))


def test_a_void_round_changes_nothing() -> None:
    round_, _ = step(closing(1, ref(0), {LOSS: 0.1}), Cancelled(reason="x"), 1.0)
    assert facts(round_, nothing) == {}


# ---- moments --------------------------------------------------------------------------------


@pytest.fixture
def models(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "models")


@pytest.fixture
def base(tmp_path: Path, models: BlobStore) -> Ref:
    (tmp_path / "base").write_bytes(pack(SPEC, [np.zeros(1000, np.float32)]))
    return models.add(tmp_path / "base", SPEC, 4096)


def contributions(folder: Path) -> list[Contribution]:
    found = []
    for seed, device in enumerate(("a", "b")):
        path = folder / device
        path.write_bytes(pack(SPEC, [np.random.default_rng(seed).standard_normal(1000).astype(np.float32)]))
        found.append(Contribution(device, path, 10))
    return found


def test_a_crash_between_the_moments_and_the_journal_applies_nothing_twice(
    tmp_path: Path, models: BlobStore, base: Ref, journal: Store, config: CoordinatorConfig
) -> None:
    method, updates = Method(strategy=FedAdam()), contributions(tmp_path)
    round_ = closing(1, base, {}, method)
    journal.save(round_, 1)
    lost = Aggregator(models, tmp_path / "moments", print).aggregate(round_, updates)
    assert lost.moments is not None
    # The process ends here: model and moments are on the disk, the journal knows of neither.
    again = Store(config.journal)
    found = again.open_round()
    assert found is not None
    resumed, _, _ = found
    assert (resumed.phase, read_moments(again.fact("moments"))) == (Phase.AGGREGATING, None)
    done = Aggregator(models, tmp_path / "moments", print).aggregate(resumed, updates)
    assert done == lost
    closed, _ = step(resumed, done, 1.0)
    again.save(closed, 1)
    assert read_moments(again.fact("moments")) == Moments("fedadam", lost.moments)
    assert again.global_model() == lost.result
    again.close()


def test_a_round_of_a_strategy_without_moments_forgets_those_of_another(
    journal: Store, models: BlobStore, base: Ref, tmp_path: Path
) -> None:
    aggregator = Aggregator(models, tmp_path / "moments", print)
    for number, method in enumerate((Method(strategy=FedAdam()), Method()), 1):
        round_ = closing(number, base, {}, method)
        closed, _ = step(round_, aggregator.aggregate(round_, contributions(tmp_path)), 1.0)
        journal.save(closed, 1)
        assert (read_moments(journal.fact("moments")) is None) == (number == 2)


def test_an_aggregation_that_cannot_be_made_voids_its_round(models: BlobStore, base: Ref, tmp_path: Path) -> None:
    heard: list[object] = []
    aggregator = Aggregator(models, tmp_path / "moments", heard.append)
    aggregator.begin(closing(3, base, {}), [Contribution("a", tmp_path / "gone", 1)])
    aggregator.stop()
    (outcome,) = heard
    assert isinstance(outcome, Outcome)
    assert isinstance(outcome.event, Cancelled)
    assert (outcome.round, "gone" in outcome.event.reason) == (3, True)


# ---- configuration --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ("strategy: {name: fedadm}", "key 'strategy.name': there is no 'fedadm'; did you mean 'fedadam'?"),
        ("strategy: {name: fedadam, beta3: 1}", "unknown key 'strategy.beta3'; did you mean 'beta2'?"),
        ("strategy: {name: krum}", "krum needs at least 5 updates, round.minimum is 2"),
        ("strategy: {name: trimmed_mean, trim: 0.1}", "trimmed_mean needs at least 10 updates"),
        ("strategy: {name: fedprox}", "set training.proximal_mu"),
        ("best_by: global_auc", "only validation metrics"),
        ("training: {patience: 3}", "set training.validation_share"),
        ("training: {schedule: {name: cosine}}", "the key 'training.schedule.rounds' is missing"),
        ("training: {schedule: {name: step, every: 5, factr: 0.5}}", "did you mean 'factor'?"),
    ],
)
def test_a_wrong_section_is_named_with_its_cure(config_path: Path, section: str, reason: str) -> None:
    from common.errors import ConfigError

    config_path.write_text(f"{config_path.read_text()}\n{section}\n")
    with pytest.raises(ConfigError) as raised:
        read_config(config_path)
    assert reason in str(raised.value)


def test_the_plan_follows_the_schedule(config_path: Path) -> None:
    schedule = "training: {learning_rate: 0.1, proximal_mu: 0.01, schedule: {name: step, every: 1, factor: 0.5}}"
    config_path.write_text(f"{config_path.read_text()}\n{schedule}\nstrategy: {{name: fedprox}}\n")
    config = read_config(config_path)
    assert [config.training_in(number).learning_rate for number in (1, 2, 3)] == [0.1, 0.05, 0.025]
    assert config.training_in(1).proximal_mu == 0.01


# ---- a full disk ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", [Method(), Method(strategy=FedAdam())], ids=["mean", "moments"])
def test_no_thread_is_left_at_work_on_a_model_that_the_disk_has_no_room_for(
    tmp_path: Path, models: BlobStore, base: Ref, monkeypatch: pytest.MonkeyPatch, method: Method
) -> None:
    """Left to the garbage collector, which may run while a thread begins, its end once hung the coordinator."""

    def full(self: BlobStore, blocks: Iterator[bytes], *_: object, **_more: object) -> Ref:
        del self
        next(blocks)
        raise DiskFullError("No space left on device")

    monkeypatch.setattr(BlobStore, "add_blocks", full)
    monkeypatch.setattr("coordinator.blocks.BLOCK_BYTES", 1024)  # more blocks than are under way
    aggregator = Aggregator(models, tmp_path / "moments", print)
    with pytest.raises(DiskFullError) as raised:  # which holds all frames
        aggregator.aggregate(closing(1, base, {}, method), contributions(tmp_path))
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("block")] == []
    assert raised.tb is not None
