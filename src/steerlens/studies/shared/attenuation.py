"""Attenuation: the loss of a ranking between the requested embedding and the decoded picture.

If the decoder adds only noise that is unrelated to the effect, correlations multiply:

    r(decoded, effect) = r(decoded, requested) r(requested, effect)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from steerlens.scores import cosine_similarity
from steerlens.studies.shared.records import Key, Record
from steerlens.studies.shared.stats import Estimate, correlation_estimate, mean_estimate, seed_reliability


@dataclass(frozen=True)
class Attenuation(Record):
    """A score before and after decoding: Spearman correlations over heads, means over pictures.

    Attributes:
        score: name of the score.
        requested: correlation of the effect with the score of requested embeddings.
        agreement: correlation of the two scores with each other.
        expected: product of `requested` and `agreement`.
        decoded: correlation of the effect with the score of decoded pictures, mean over seeds.
        without_noise: extrapolation to infinitely many seeds, `decoded` over the root of its reliability; nan for a
            single seed, or if seeds disagree too much.
        fidelity: mean cosine between requested embeddings and those of the decoded pictures.
        spread_requested: standard deviation over heads of the score before decoding, mean over pictures.
        spread_decoded: the same after decoding.
    """

    score: str
    requested: Annotated[Estimate, Key("asked")]
    agreement: Annotated[Estimate, Key("passed_on")]
    expected: float
    decoded: Annotated[Estimate, Key("made")]
    without_noise: float
    fidelity: Estimate
    spread_requested: Annotated[float, Key("spread_asked")]
    spread_decoded: Annotated[float, Key("spread_made")]


def attenuation(
    score: str,
    requested: Float[Tensor, "P N"],
    decoded: Float[Tensor, "S P N"],
    effect: Float[Tensor, "P N"],
    fidelity: Float[Tensor, "P N"],
    concepts: Sequence[str],
    *,
    draws: int = 1000,
) -> Attenuation:
    """Measures the attenuation of a score by decoding.

    Args:
        score: name of the score.
        requested: the score of requested embeddings.
        decoded: the score of decoded pictures, by seed.
        effect: the effect that it should predict.
        fidelity: cosine between requested and decoded embeddings, mean over seeds.
        concepts: concept of each picture.
        draws: bootstrap draws.
    """
    mean = decoded.mean(dim=0)
    before = correlation_estimate(requested, effect, concepts, draws=draws)
    after = correlation_estimate(mean, effect, concepts, draws=draws)
    agreement = correlation_estimate(mean, requested, concepts, draws=draws)
    reliability = seed_reliability(decoded)[1]
    return Attenuation(
        score=score,
        requested=before,
        agreement=agreement,
        expected=agreement.value * before.value,
        decoded=after,
        without_noise=after.value / reliability**0.5 if reliability > 0 else float("nan"),
        fidelity=mean_estimate(fidelity, concepts, draws=draws),
        spread_requested=float(requested.std(dim=-1).mean()),
        spread_decoded=float(mean.std(dim=-1).mean()),
    )


def fidelity_table(requested: Float[Tensor, "P N E"], decoded: Float[Tensor, "S P N E"]) -> Float[Tensor, "P N"]:
    """Cosine between requested embeddings and those of the decoded pictures, mean over seeds."""
    return cosine_similarity(decoded, requested[None].expand_as(decoded)).mean(dim=0)
