"""Whether decoded similarity orders the heads of an input: not where random directions score as high as the input."""

import math
from typing import NamedTuple

import numpy as np

from steerlens.atlas import CONTROLS, Atlas, Reading
from steerlens.report.terms import steered_lens, two
from steerlens.report.words import words


class RandomScores(NamedTuple):
    """Similarities of one input's random directions, beside that of its clean reconstruction.

    Attributes:
        n_controls: number of decoded controls.
        median: their median similarity, in [-1,1].
        highest: their highest similarity.
        clean: similarity of the clean reconstruction, mean over seeds.
    """

    n_controls: int
    median: float
    highest: float
    clean: float


def random_scores(atlas: Atlas, picture: str) -> RandomScores | None:
    """Scores of the random directions of an input; None without controls or a clean reconstruction."""
    lens, clean = CONTROLS[steered_lens(atlas)], atlas.clean(picture)
    scores = [result.similarity for site in atlas.sites(lens, picture) for result in atlas.cells(lens, site, picture)]
    scores = [score for score in scores if math.isfinite(score)]
    if not scores or not clean:
        return None
    return RandomScores(
        len(scores), float(np.median(scores)), max(scores), float(np.mean([result.similarity for result in clean]))
    )


def unordered_sentence(atlas: Atlas, reading: Reading) -> str | None:
    """Says that decoded similarity does not order the heads of an input, and what to look at instead.

    None where the median random direction scores below the clean reconstruction, and for other targets than the input
    itself, which the clean reconstruction need not resemble.
    """
    scores = random_scores(atlas, reading.id)
    if scores is None or scores.median < scores.clean or reading.target != "the input itself":
        return None
    ablations = "ablations (--effect total)" if reading.ablation_effects is None else "ablations (the map: Without it)"
    than = "higher than" if scores.median > scores.clean else "as high as"
    return (
        f"Random directions score {than} the {words(atlas)['clean']} (median {two(scores.median)}, highest "
        f"{two(scores.highest)}, of {scores.n_controls} controls, against {two(scores.clean)}), so decoded similarity "
        f"does not order heads on this input: look at scores before decoding and at {ablations} instead."
    )
