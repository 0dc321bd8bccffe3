"""Texts that describe heads: texts that fit a head better than other heads, and better than chance.

A direction of the embedding space is compared with every text. Some texts are close to the directions of all heads, so
texts are ranked by their excess: their score minus their mean score over all other heads. Among thousands of texts some
have a large excess by chance, so it is compared with the best excess of meaningless directions.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.atlas import TextScore
from steerlens.vocabulary import TextVocabulary, Vocabulary

_LEVEL = 0.95
"""Share of meaningless directions whose best text a text must exceed to stand out."""


def text_scores(
    vocabulary: Vocabulary, steered: Float[Tensor, "N E"], neutral: Float[Tensor, "E"]
) -> Float[Tensor, "N V"]:
    """Scores of every text for the change of the embedding: cosines for texts, differences of logits for classes."""
    if isinstance(vocabulary, TextVocabulary):
        return vocabulary.scores(steered - neutral)
    return vocabulary.scores(steered) - vocabulary.scores(neutral)


def excess(scores: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
    """Scores minus the mean over all other rows; the scores themselves if there is only one row."""
    N = scores.shape[0]
    return scores if N < 2 else scores - (scores.sum(dim=0) - scores) / (N - 1)


def chance_level(scores: Float[Tensor, "N V"]) -> float:
    """95th percentile of the best text's excess over meaningless directions."""
    return float(torch.quantile(excess(scores.double()).amax(dim=1), _LEVEL))


def describe(
    names: Sequence[str], scores: Float[Tensor, "N V"], chance: Float[Tensor, "K V"], k: int
) -> tuple[list[tuple[TextScore, ...]], float]:
    """Describes every head by texts, largest excess first; also returns the chance level of the excess.

    Args:
        names: the V texts.
        scores: scores of every head.
        chance: scores of meaningless directions.
        k: number of texts per head.
    """
    level, above = chance_level(chance), excess(scores.double())
    best = above.topk(min(k, len(names)), dim=1)
    described = [
        tuple(
            TextScore(names[int(index)], float(scores[head, int(index)]), value, value > level)
            for index, value in zip(indices, values, strict=True)
        )
        for head, (indices, values) in enumerate(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    ]
    return described, level
