"""How much of each label every part gets: alike, or skewed as sites are in life. Pure, and seeded.

The skews are those of Li, Diao, Chen and He, "Federated learning on non-IID data silos: an experimental
study" (2022): shares drawn from a Dirichlet distribution, for each label by itself or for all together.
The smaller `alpha`, the further the sites are apart; at 100 they are nearly alike.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np

Skew: TypeAlias = Literal["none", "labels", "quantity"]
"""`none`: stratified, every part has each label in the same proportion; `labels`: sites differ in how much they
have of each label; `quantity`: sites differ in size, not in proportion."""
Shares: TypeAlias = dict[str, float]
"""The share of each part in a label's images."""
UNSEEN = "_unseen"


def label_shares(even: Mapping[str, float], sites: Sequence[str], skew: Skew, seed: tuple[int, float]) -> list[Shares]:
    """Give the shares of the negative and of the positive label.

    `even` are the shares without a skew; what all `sites` have together, held-back parts included, stays
    as it is, and so does every other part. `seed` is the seed and the Dirichlet distribution's `alpha`.
    """
    number, alpha = seed
    rng = np.random.Generator(np.random.PCG64(number))
    drawn = [rng.dirichlet([alpha] * len(sites)) for _ in range(2)]
    if skew == "none":
        return [dict(even), dict(even)]
    if skew == "quantity":
        drawn = [drawn[0], drawn[0]]
    return [_skewed(even, sites, [float(share) for share in shares]) for shares in drawn]


def _skewed(even: Mapping[str, float], sites: Sequence[str], drawn: Sequence[float]) -> Shares:
    own = {site: [name for name in (site, site + UNSEEN) if name in even] for site in sites}
    total = sum(even[name] for names in own.values() for name in names)
    shares = dict(even)
    for site, share in zip(sites, drawn, strict=True):
        before = sum(even[name] for name in own[site])
        for name in own[site]:
            shares[name] = even[name] / before * share * total
    return shares
