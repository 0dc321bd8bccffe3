"""Scales of colours: one for a whole run, never fitted to a picture or a head, so that maps can be compared."""

import math
from collections.abc import Sequence

from steerlens.atlas import Atlas, LensName
from steerlens.report.words import is_retrieved


def similarity_scale(atlas: Atlas, lenses: Sequence[LensName]) -> tuple[float, float]:
    """Ends of the colour scale of similarities, the same for all inputs and lenses of a run.

    It runs from 0 to 1, unless the similarities lie elsewhere: those with a text may all be close to 0 or below it.
    Cosines of retrieved pictures lie close together in many spaces; the scale is what they span, in steps of 0.05.
    """
    values = [
        score.similarity for reading in atlas.readings for lens in lenses for score in atlas.ranked(lens, reading.id)
    ]
    if is_retrieved(atlas):
        known = [value for value in values if math.isfinite(value)]
        least, most = math.floor(min(known, default=0.0) * 20), math.ceil(max(known, default=1.0) * 20)
        return least / 20, max(most, least + 1) / 20
    undecoded = [reading.steered_similarity for reading in atlas.readings if reading.steered_similarity is not None]
    values += [end for scores in undecoded for end in (float(scores.min()), float(scores.max()))]
    values = [value for value in values if math.isfinite(value)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    top = 1.0 if high > 0.5 else nice_ceiling(max(high, 0.01))
    return (-nice_ceiling(-low) if low < -0.005 else 0.0), top


def nice_ceiling(value: float) -> float:
    """Smallest 1, 2 or 5 times a power of ten that is not below a positive value; 1 for other values."""
    if not value > 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(round(step * power, 12) for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))
