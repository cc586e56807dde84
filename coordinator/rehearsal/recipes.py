"""What the demo trains: one recipe for the small CNN, one for MobileNetV2, as measured in `docs/learning.md`."""

from typing import Any

import msgspec

SHARES = (0.16, 0.42, 0.42)
"""Of the coordinator and of each of two sites in all images: most images are where no other site may see them."""
UNSEEN_SHARE = 0.5
"""Of a site's images that nobody trains on: of few, an AUC would say little."""
ROUNDS = 14


class Recipe(msgspec.Struct, frozen=True):
    """Model, initial training and rounds, in the words of the coordinator's configuration."""

    model: dict[str, Any]
    initial: dict[str, Any]
    training: dict[str, Any]
    strategy: dict[str, Any]
    rounds: int


SIMPLE_CNN = Recipe(
    model={"name": "simple_cnn", "options": {"image_size": 64}},
    initial={"source": "train", "epochs": 10, "batch_size": 8, "learning_rate": 1e-3},
    training={
        "epochs": 3,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "schedule": {"name": "cosine", "rounds": ROUNDS, "final": 0.1},
    },
    strategy={"name": "fedavgm", "momentum": 0.5},
    rounds=ROUNDS,
)


def mobilenet_v2(weights: str) -> Recipe:
    """Return the recipe with pretrained `weights`: a path, or `imagenet`."""
    return Recipe(
        model={"name": "mobilenet_v2", "options": {"alpha": 0.35, "image_size": 128, "weights": weights}},
        initial={"source": "train", "epochs": 24, "batch_size": 8, "learning_rate": 3e-4},
        training={"epochs": 2, "batch_size": 16, "learning_rate": 2e-4},
        strategy={"name": "fedavg"},
        rounds=8,
    )
