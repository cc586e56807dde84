"""What the demo trains: one recipe for the small CNN, one for MobileNetV2, as measured in `docs/learning.md`."""

from typing import Any

import msgspec


class Recipe(msgspec.Struct, frozen=True):
    """Model, initial training and rounds, in the words of the coordinator's configuration."""

    model: dict[str, Any]
    initial: dict[str, Any]
    training: dict[str, Any]
    rounds: int


COOLING = {"name": "cosine", "rounds": 8, "final": 0.1}
SIMPLE_CNN = Recipe(
    model={"name": "simple_cnn", "options": {"image_size": 96}},
    initial={"source": "train", "epochs": 5, "batch_size": 8, "learning_rate": 1e-3},
    training={"epochs": 4, "batch_size": 8, "learning_rate": 1e-3, "schedule": COOLING},
    rounds=8,
)


def mobilenet_v2(weights: str) -> Recipe:
    """Return the recipe with pretrained `weights`: a path, or `imagenet`."""
    return Recipe(
        model={"name": "mobilenet_v2", "options": {"alpha": 0.35, "image_size": 128, "weights": weights}},
        initial={"source": "train", "epochs": 24, "batch_size": 8, "learning_rate": 3e-4},
        training={"epochs": 2, "batch_size": 16, "learning_rate": 2e-4},
        rounds=8,
    )
