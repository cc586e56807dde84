"""Multi-Krum: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent" (2017)."""

from typing import Annotated

import msgspec

from coordinator.strategies.krum import Krum


class MultiKrum(Krum, frozen=True, tag="multi_krum"):
    """The plain mean of the `keep` updates with Krum's best scores; of n - byzantine where it is 0."""

    keep: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0

    @property
    def least_updates(self) -> int:
        """Return Krum's number, and at least as many as are kept."""
        return max(super().least_updates, self.keep)

    def keeps(self, updates: int) -> int:
        """Return how many of so many updates are kept."""
        return self.keep or updates - self.byzantine
