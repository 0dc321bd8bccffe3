"""Texts that describe heads: those that fit one head better than the others, and better than chance.

A direction of the embedding space is compared with every text. Some texts are close to the directions of all heads, so
a text is ranked by its excess: its score minus its mean score over all other heads. Among thousands of texts some
exceed by chance, so the best excess of directions that mean nothing is given beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.vocabulary import TextVocabulary, Vocabulary

_LEVEL = 0.95
"""Share of meaningless directions whose best text a text must exceed to stand out."""


@dataclass(frozen=True)
class TextScore:
    """A text with its score for one head.

    Attributes:
        text: the text.
        score: cosine with the head's direction; for a classifier, the change of its logit.
        excess: the score less the text's mean score over the other heads.
        stands_out: whether the excess is above what 95 % of meaningless directions reach with their best text.
    """

    text: str
    score: float
    excess: float
    stands_out: bool


def text_scores(
    vocabulary: Vocabulary, steered: Float[Tensor, "N E"], neutral: Float[Tensor, "E"]
) -> Float[Tensor, "N V"]:
    """How well every text fits the change of the embedding: a cosine for texts, a difference of logits for classes."""
    if isinstance(vocabulary, TextVocabulary):
        return vocabulary.scores(steered - neutral)
    return vocabulary.scores(steered) - vocabulary.scores(neutral)


def excess(scores: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
    """Scores less the mean over all other rows; the scores themselves for a single row."""
    N = scores.shape[0]
    return scores if N < 2 else scores - (scores.sum(dim=0) - scores) / (N - 1)


def chance_level(scores: Float[Tensor, "N V"]) -> float:
    """The excess that the best text of a meaningless direction stays below in 95 of 100 cases."""
    return float(torch.quantile(excess(scores.double()).amax(dim=1), _LEVEL))


def describe(
    names: Sequence[str], scores: Float[Tensor, "N V"], chance: Float[Tensor, "K V"], k: int
) -> tuple[list[tuple[TextScore, ...]], float]:
    """The texts of every head, largest excess first, and the level that chance reaches.

    Args:
        names: the V texts.
        scores: of every head.
        chance: of directions that mean nothing.
        k: texts a head.
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
