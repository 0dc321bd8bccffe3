"""Random sample of heads with equal shares of the layers, for when decoding all heads would take too long.

A figure of a sample has an interval that is wider by what other heads would have given. A bootstrap that draws pictures
and heads together counts the noise of single entries three times; here the variance of the heads alone is added.

References: A. C. Cameron, J. B. Gelbach, D. L. Miller, "Robust inference with multiway clustering", Journal of Business
& Economic Statistics 29, 2011.
"""

import random
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.sites import Site
from steerlens.studies.shared.stats import Estimate


def stratified_heads(sites: Sequence[Site], count: int | None, seed: int) -> list[int]:
    """Draws a random sample of sites, with as equal numbers of each layer as possible.

    Args:
        sites: heads of any layers.
        count: size of the sample; None for all sites.
        seed: of the sample.

    Returns:
        Indices of the sampled sites, in order.

    Raises:
        UsageError: if the count is below 2, since a ranking needs at least two.
    """
    if count is not None and count < 2:
        raise UsageError(f"a ranking needs at least 2 heads of a picture, not {count}.")
    if count is None or count >= len(sites):
        return list(range(len(sites)))
    chance = random.Random(seed)
    queues: list[list[int]] = []
    for layer in sorted({site.layer for site in sites}):
        members = [place for place, site in enumerate(sites) if site.layer == layer]
        chance.shuffle(members)
        queues.append(members)
    # The first of each layer, then the second of each; a random order decides which layers contribute one more.
    chance.shuffle(queues)
    rounds = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return sorted(rounds[:count])


def head_variance(table: Float[Tensor, "P n"], layers: Sequence[int]) -> float:
    """Variance of a mean over heads that heads drawn within their layers cause, beyond the noise of single entries.

        max(0, mean over layers of var(m_h) - s^2 / P) / n       m_h: mean of a head; s^2: residual variance of entries

    Without two heads in any layer, all heads are taken for a single layer; 0 for one head or one picture.

    Args:
        table: figure of each picture and head, of which the mean is estimated.
        layers: layer of each head.
    """
    values = table.double()
    P, n = values.shape
    if P < 2 or n < 2:
        return 0.0
    heads, pictures = values.mean(dim=0), values.mean(dim=1, keepdim=True)
    noise = (values - heads - pictures + values.mean()).square().sum() / ((P - 1) * (n - 1))
    groups = [[place for place, own in enumerate(layers) if own == layer] for layer in sorted(set(layers))]
    several = [group for group in groups if len(group) > 1] or [list(range(n))]
    within = sum(float(heads[group].var()) * (len(group) - 1) for group in several)
    within /= sum(len(group) - 1 for group in several)
    return max(0.0, within - float(noise) / P) / n


def widened(estimate: Estimate, variance: float) -> Estimate:
    """Widens both sides of a 95 % interval by an independent source of variance."""
    low, high = (estimate.value - estimate.low, estimate.high - estimate.value)
    low, high = ((max(side, 0.0) ** 2 + 1.96**2 * variance) ** 0.5 if variance > 0 else side for side in (low, high))
    return Estimate(estimate.value, estimate.value - low, estimate.value + high)
