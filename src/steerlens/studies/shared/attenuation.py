"""Where a ranking is lost between the embedding that is asked for and the picture that is made of it.

If the decoder only adds noise that has nothing to do with the effect, correlations multiply:

    r(decoded, effect) = r(decoded, asked) r(asked, effect)
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from steerlens.scores import cosine_similarity
from steerlens.studies.shared.stats import Estimate, correlation_estimate, mean_estimate, seed_reliability


@dataclass(frozen=True)
class Attenuation:
    """One score before and after decoding; Spearman correlations over heads, means over pictures.

    Attributes:
        score: its name.
        asked: the effect's correlation with the score of the embeddings asked for.
        passed_on: correlation of the two scores.
        expected: the product of these two.
        made: the effect's correlation with the score of the decoded pictures, mean of seeds.
        without_noise: the same with infinitely many seeds, `made` over the root of its reliability; nan where seeds
            disagree too much to tell, or where there is one.
        fidelity: mean cosine between what was asked for and what came out, embedded again.
        spread_asked: standard deviation over heads of the score asked for, mean over pictures.
        spread_made: the same of the decoded score.
    """

    score: str
    asked: Estimate
    passed_on: Estimate
    expected: float
    made: Estimate
    without_noise: float
    fidelity: Estimate
    spread_asked: float
    spread_made: float


def attenuation(
    score: str,
    asked: Float[Tensor, "P N"],
    made: Float[Tensor, "S P N"],
    effect: Float[Tensor, "P N"],
    fidelity: Float[Tensor, "P N"],
    concepts: Sequence[str],
    *,
    draws: int = 1000,
) -> Attenuation:
    """What decoding leaves of a score.

    Args:
        score: its name.
        asked: the score of the embeddings asked for.
        made: of the decoded pictures, seed by seed.
        effect: what it should predict.
        fidelity: cosine between asked and made, mean over seeds.
        concepts: of the pictures.
        draws: bootstrap draws.
    """
    mean = made.mean(dim=0)
    before = correlation_estimate(asked, effect, concepts, draws=draws)
    after = correlation_estimate(mean, effect, concepts, draws=draws)
    passed = correlation_estimate(mean, asked, concepts, draws=draws)
    whole = seed_reliability(made)[1]
    return Attenuation(
        score=score,
        asked=before,
        passed_on=passed,
        expected=passed.value * before.value,
        made=after,
        without_noise=after.value / whole**0.5 if whole > 0 else float("nan"),
        fidelity=mean_estimate(fidelity, concepts, draws=draws),
        spread_asked=float(asked.std(dim=-1).mean()),
        spread_made=float(mean.std(dim=-1).mean()),
    )


def fidelity_table(asked: Float[Tensor, "P N E"], made: Float[Tensor, "S P N E"]) -> Float[Tensor, "P N"]:
    """Cosine between embeddings asked for and those of the pictures that came out, mean over seeds."""
    return cosine_similarity(made, asked[None].expand_as(made)).mean(dim=0)
