"""What a plan may ask of a training besides epochs: early stopping, FedProx, clipping, weights, steps, BatchNorm."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import pytest

from common.learning.course import hold_out
from common.learning.evaluation import evaluate
from common.learning.personal import bare, places
from common.learning.seam import Examples, Learner, Site, build
from common.plan import ModelChoice, Training
from common.weights import Tensor

pytestmark = [
    pytest.mark.tensorflow,
    # Keras reads TensorFlow's variables in a way that NumPy 2 discourages.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SIZE = 32
PLAN = Training(epochs=3, batch_size=10, seed=3, learning_rate=3e-3)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return build(ModelChoice(name="simple_cnn", options={"image_size": SIZE}), {})


def site(positives: int = 20, negatives: int = 20) -> Site:
    """Dark noise; the positives have a bright spot."""
    rng = np.random.default_rng(0)
    labels = np.array([1] * positives + [0] * negatives, np.int64)
    images = rng.integers(0, 60, (len(labels), SIZE, SIZE, 3), np.uint8)
    for place in np.flatnonzero(labels):
        x, y = rng.integers(4, SIZE - 12, 2)
        images[place, y : y + 8, x : x + 8] = 220
    examples = Examples(images, labels)
    return Site(examples, examples)


def train(learner: Learner, start: list[Tensor], **options: Any) -> tuple[list[Tensor], list[Mapping[str, float]]]:
    told: list[Mapping[str, float]] = []
    plan = msgspec.structs.replace(PLAN, **options)
    return learner.train(start, site(), plan, lambda _epoch, metrics: told.append(metrics)).weights, told


def distance(one: list[Tensor], other: list[Tensor]) -> float:
    return float(np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(one, other, strict=True))))


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def test_training_stops_when_validation_gets_no_better_and_gives_the_best_epoch_back(learner: Learner) -> None:
    start = learner.initial(0)
    weights, told = train(learner, start, epochs=40, learning_rate=0.02, validation_share=0.3, patience=2)
    losses = [metrics["validation_loss"] for metrics in told]
    best = int(np.argmin(losses)) + 1
    assert len(told) == best + 2 < 40
    held = hold_out(site().train, 0.3)[1]
    assert evaluate(learner.predict(weights, held.images), held.labels).loss == pytest.approx(losses[best - 1])
    plan = msgspec.structs.replace(PLAN, epochs=40, learning_rate=0.02, validation_share=0.3)
    seen: list[float] = []
    other = learner.train(start, site(), plan, lambda _epoch, metrics: seen.append(metrics["validation_loss"]))
    assert seen[: len(losses)] == losses
    assert other.num_examples == 28


def test_the_weights_are_those_of_the_epoch_that_validated_best() -> None:
    from common.learning.framework import keras
    from common.learning.keras_learner import KerasLearner

    seen: list[list[Tensor]] = []

    class Told(KerasLearner):
        def _validate(self, examples: Examples) -> dict[str, float]:
            assert len(examples) == 12
            seen.append([variable.value.numpy() for variable in self._model.weights])
            return {"validation_loss": (0.7, 0.5, 0.6, 0.55)[len(seen) - 1]}

    head = [keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(1, activation="sigmoid")]
    told = Told(keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Rescaling(1 / 255), *head]))
    weights, _ = train(told, told.initial(0), epochs=9, validation_share=0.3, patience=2)
    assert len(seen) == 4
    assert same(weights, seen[1])
    assert not same(weights, seen[3])


def test_a_step_count_beats_epochs(learner: Learner) -> None:
    start = learner.initial(0)
    by_epochs, _ = train(learner, start, epochs=2)
    by_steps, told = train(learner, start, epochs=9, steps=8)
    assert same(by_epochs, by_steps)
    assert len(told) == 2
    assert not same(train(learner, start, steps=7)[0], by_steps)
    one, _ = train(learner, start, steps=1)  # Adam's first step moves no weight by more than the rate
    assert max(float(np.abs(a - b).max()) for a, b in zip(start, one, strict=True)) < PLAN.learning_rate * 1.01


def test_a_proximal_term_holds_the_weights_near_the_global_ones(learner: Learner) -> None:
    start = learner.initial(0)
    free, weak, strong = (train(learner, start, proximal_mu=mu)[0] for mu in (0.0, 1e-6, 1.0))
    assert distance(start, strong) < distance(start, free) / 2
    assert distance(free, weak) < distance(start, free) / 10
    elsewhere = learner.initial(1)
    assert distance(elsewhere, train(learner, elsewhere, proximal_mu=1.0)[0]) < distance(elsewhere, start) / 2


def test_the_first_step_owes_nothing_to_the_proximal_term(learner: Learner) -> None:
    """At the global weights its gradient is zero."""
    start = learner.initial(0)
    assert distance(train(learner, start, steps=1, proximal_mu=5.0)[0], train(learner, start, steps=1)[0]) < 1e-6


def test_a_clipped_gradient_has_at_most_that_norm() -> None:
    from common.learning.framework import tf
    from common.learning.keras_step import _clip

    given = [tf.constant([3.0, 0.0]), None, tf.constant([[4.0]])]
    clipped = [g for g in _clip(given, tf.constant(1.0)) if g is not None]
    assert float(tf.linalg.global_norm(clipped)) == pytest.approx(1)
    assert float(clipped[0][0] / clipped[1][0, 0]) == pytest.approx(3 / 4)
    for norm in (10.0, np.inf):
        assert [g.numpy().tolist() for g in _clip(given, tf.constant(norm)) if g is not None] == [[3, 0], [[4]]]


def test_clipping_reaches_the_training(learner: Learner) -> None:
    start = learner.initial(0)
    assert not same(train(learner, start, clip_norm=1e-7)[0], train(learner, start)[0])
    assert same(train(learner, start, clip_norm=1e8)[0], train(learner, start)[0])


def test_class_weights_lift_the_rare_label() -> None:
    """Images without any difference: what is learnt is how frequent each label is, or that both weigh alike."""
    learner = build(ModelChoice(name="simple_cnn", options={"image_size": SIZE, "warm_up_steps": 0}), {})
    examples = Examples(np.full((40, SIZE, SIZE, 3), 90, np.uint8), np.array([0] * 34 + [1] * 6))
    for weighted, expected in ((False, 6 / 40), (True, 0.5)):
        plan = msgspec.structs.replace(PLAN, epochs=60, batch_size=40, class_weights=weighted)
        trained = learner.train(learner.initial(0), Site(examples, examples), plan, lambda _epoch, _metrics: None)
        assert learner.predict(trained.weights, examples.images[:1])[0] == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize(
    ("built", "planned", "is_trained"),
    [
        ("frozen", "model", False),
        ("frozen", "averaged", True),
        ("trained", "frozen", False),
        ("trained", "local", True),
    ],
)
def test_the_plan_decides_about_batch_norm(built: str, planned: str, is_trained: bool) -> None:
    options = {"image_size": SIZE, "weights": None, "trainable_layers": 8, "batch_norm": built}
    learner = build(ModelChoice(name="mobilenet_v2", options=options), {})
    start = learner.initial(0)
    after, _ = train(learner, start, steps=2, batch_norm=planned)
    pairs = zip(learner.spec(), start, after, strict=True)
    changed = {t.name for t, a, b in pairs if a.tobytes() != b.tobytes()}
    assert any(name.endswith("moving_mean") for name in changed) == is_trained
    assert all("block_16" in name or "Conv" in name or "probability" in name for name in changed)
    assert len(changed) > 2


def test_a_warm_learner_goes_from_one_batch_norm_to_the_other_and_back() -> None:
    options = {"image_size": SIZE, "weights": None, "trainable_layers": 8}
    learner = build(ModelChoice(name="mobilenet_v2", options=options), {})
    start = learner.initial(0)
    first, _ = train(learner, start, steps=2)
    train(learner, start, steps=2, batch_norm="averaged")
    assert same(train(learner, start, steps=2)[0], first)


# ---- the clients' variant of the small CNN ---------------------------------------------------


def variant(**options: Any) -> Learner:
    return build(ModelChoice(name="extra_dense_cnn", options={"image_size": SIZE, **options}), {})


def test_the_variant_has_the_layers_of_the_small_cnn_and_two_more(learner: Learner) -> None:
    shared = {bare(tensor.name): tensor.shape for tensor in learner.spec()}
    ours = {bare(tensor.name): tensor.shape for tensor in variant().spec()}
    assert shared.items() <= ours.items()
    extra = {f"sequential/extra_{layer}/{kind}" for layer in ("conv", "dense") for kind in ("kernel", "bias")}
    assert ours.keys() - shared.keys() == extra
    spec, plan = variant().spec(), msgspec.structs.replace(PLAN, personal=("*/extra_*",))
    assert {bare(spec[place].name) for place in places(spec, plan)} == extra


@pytest.mark.parametrize("freeze", [True, False])
def test_the_variant_trains_what_comes_from_its_first_extra_layer_on(freeze: bool) -> None:
    learner = variant(freeze=freeze)
    start = learner.initial(0)
    after, _ = train(learner, start)
    pairs = zip(learner.spec(), start, after, strict=True)
    still = {bare(t.name).split("/")[1] for t, a, b in pairs if a.tobytes() == b.tobytes()}
    assert still == ({"conv1", "conv2", "conv3"} if freeze else set())
