"""Random sample of heads with equal shares of the layers, for when decoding all heads would take too long."""

import random
from collections.abc import Sequence

from steerlens.errors import UsageError
from steerlens.sites import Site


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
