"""Every figure of the strength study, from the parts that it stored, and the rule that recommends a strength.

Scores are similarities of decoded pictures, and of the embeddings asked for, with the input and with the target of the
signed effect. The strength is recommended on one half of the concepts and reported on the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from steerlens.lenses.strength import Strength
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.notions import INPUT, stacked
from steerlens.studies.shared.stats import (
    Estimate,
    correlation_estimate,
    difference_estimate,
    interaction,
    mean_correlation,
    mean_estimate,
    spearman,
)
from steerlens.studies.strength.tables import DECODED, Half

ATYPICAL = 95.0
"""The percentile of real embeddings' own distances beyond which an embedding counts as atypical."""


@dataclass(frozen=True)
class Bounds:
    """What a strength must keep to be recommended.

    Attributes:
        fidelity: mean fidelity of its pictures, as a share of the clean picture's, at least.
        atypical: share of its steered embeddings beyond the 95th percentile of real embeddings' nearest-neighbour
            distances, at most.
    """

    fidelity: float = 0.5
    atypical: float = 0.5


@dataclass(frozen=True)
class Typical:
    """How typical embeddings are.

    Attributes:
        percentile: mean percentile among real embeddings' own distances, in [0,100]; 50 for real ones.
        beyond: share beyond the 95th percentile; 0.05 for real ones.
    """

    percentile: Estimate
    beyond: Estimate


@dataclass(frozen=True)
class Point:
    """One strength of the sweep, on the concepts to report on.

    Attributes:
        strength: its name.
        kind: `rho` or `s`.
        value: its number.
        rho: the relative strength that it amounts to, median over pictures and heads.
        similarity: mean similarity, by score and then by what it is with.
        fidelity: mean cosine of decoded pictures with what was asked for.
        typicality: of the steered embeddings, by kind of distance.
    """

    strength: str
    kind: str
    value: float
    rho: float
    similarity: Mapping[str, Mapping[str, Estimate]]
    fidelity: Estimate
    typicality: Mapping[str, Typical]


@dataclass(frozen=True)
class Correlated:
    """One correlation over heads of a score with an effect, mean over pictures.

    Attributes:
        strength: of the sweep.
        score: what the score is of.
        compare: what it is the similarity with.
        effect: the notion of importance.
        statistic: `spearman`, or `interaction`: with head and picture means removed.
        estimate: with its interval.
    """

    strength: str
    score: str
    compare: str
    effect: str
    statistic: str
    estimate: Estimate


@dataclass(frozen=True)
class Candidate:
    """A strength where the choice is made.

    Attributes:
        correlation: mean Spearman correlation of decoded similarity with the target and the signed effect.
        fidelity: as a share of the clean picture's.
        atypical: share of steered embeddings beyond the 95th percentile of nearest-neighbour distances.
        within: whether both keep to the bounds.
    """

    correlation: float
    fidelity: float
    atypical: float
    within: bool


@dataclass(frozen=True)
class Recommendation:
    """The strength that the rule gives.

    Attributes:
        rule: the rule, in words.
        bounds: what it asks for.
        strength: what it gives, or None if no strength keeps to the bounds.
        candidates: every strength of the sweep, on the concepts to choose on.
        best: the largest correlation within the bounds.
        runners_up: others within the bounds whose paired difference to the best has an interval that includes 0.
        decided: what singled the strength out: the `correlation`, if it tells the best from all others; the `bounds`,
            with the rule's convention, if it tells it from none; else the `convention` among those that it leaves.
        correlation: of the recommended strength, on the concepts to report on.
        differences: paired, recommended minus every other strength, on the concepts to report on.
    """

    rule: str
    bounds: Bounds
    strength: str | None
    candidates: Mapping[str, Candidate]
    best: str | None = None
    runners_up: tuple[str, ...] = ()
    decided: Literal["correlation", "convention", "bounds"] | None = None
    correlation: Estimate | None = None
    differences: Mapping[str, Estimate] | None = None


@dataclass(frozen=True)
class StrengthSummary:
    """Everything that the strength study reports; all but the choice is of the concepts to report on.

    Attributes:
        n_pictures: pictures to report on.
        n_concepts: concepts among them.
        n_chosen: pictures to choose on.
        n_chosen_concepts: concepts among those.
        n_heads: heads.
        n_decoded: heads whose pictures were decoded.
        n_seeds: seeds of the decoder.
        n_references: real embeddings held apart.
        main: the signed effect.
        target: what it is signed towards.
        default: the strength that the model is run with by default.
        clean_fidelity: of the unsteered pictures.
        clean_typicality: of the unsteered embeddings, by kind of distance.
        points: the sweep.
        correlations: of scores with effects.
        recommendation: the rule's.
        judge: the outside judge, or None.
        command: what was run, if it was a command.
    """

    n_pictures: int
    n_concepts: int
    n_chosen: int
    n_chosen_concepts: int
    n_heads: int
    n_decoded: int
    n_seeds: int
    n_references: int
    main: str
    target: str
    default: str
    clean_fidelity: Estimate
    clean_typicality: Mapping[str, Typical]
    points: tuple[Point, ...]
    correlations: tuple[Correlated, ...]
    recommendation: Recommendation
    judge: JudgeName | None = None
    command: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def typical(half: Half, name: str) -> dict[str, Typical]:
    """Typicality of a strength's steered embeddings, or of the clean ones, with intervals."""

    def estimate(table: Tensor) -> Estimate:
        return mean_estimate(table, half.concepts, draws=half.draws)

    return {
        kind: Typical(estimate(table), estimate((table > ATYPICAL).double()))
        for kind, table in half.percentiles(name).items()
    }


def point_of(half: Half, strength: Strength) -> Point:
    """What one strength does to pictures and embeddings."""

    def estimate(table: Tensor) -> Estimate:
        return mean_estimate(table, half.concepts, draws=half.draws)

    similarity: dict[str, dict[str, Estimate]] = {}
    for compare in (INPUT, half.main.target):
        for score, (table, _) in half.scores(strength, compare).items():
            similarity.setdefault(score, {})[compare] = estimate(table)
    return Point(
        strength=str(strength),
        kind=strength.kind,
        value=strength.value,
        rho=float(stacked(half.parts, f"rho.{strength}").median()),
        similarity=similarity,
        fidelity=estimate(half.fidelity(strength)),
        typicality=typical(half, str(strength)),
    )


def correlations_of(half: Half, strength: Strength) -> list[Correlated]:
    """How every score of one strength correlates with both effects, as it is and without head and picture means."""
    effects = half.effects()
    return [
        Correlated(
            str(strength),
            score,
            compare,
            effect,
            statistic,
            correlation_estimate(
                table, values[:, list(columns)], half.concepts, correlation=correlation, draws=half.draws
            ),
        )
        for compare in (INPUT, half.main.target)
        for score, (table, columns) in half.scores(strength, compare).items()
        for effect, values in effects.items()
        for statistic, correlation in (("spearman", spearman), ("interaction", interaction))
    ]


def recommend(chosen: Half, reported: Half, strengths: Sequence[Strength], bounds: Bounds) -> Recommendation:
    """Chooses a strength by the rule on some concepts, and reports it on others."""
    rule = (
        f"allowed are strengths whose mean fidelity is at least {bounds.fidelity:g} of the clean pictures' and of "
        f"whose steered embeddings at most a share of {bounds.atypical:g} lies beyond the {ATYPICAL:g}th percentile "
        "of real embeddings' nearest-neighbour distances; the best of them has the largest Spearman correlation over "
        f"heads of the decoded pictures' similarity with the target ({chosen.main.target}) and the effect of ablation "
        f"({chosen.main}), mean over pictures; among it and those that cannot be told from it (paired "
        "difference, 95 % interval) no measurement decides but a convention: the one that moves embeddings farthest "
        "is taken, since the pictures of a weaker one show little but the input"
    )
    candidates = {strength: _candidate(chosen, strength, bounds) for strength in strengths}
    named = {str(strength): candidate for strength, candidate in candidates.items()}
    allowed = [one for one, found in candidates.items() if found.within and found.correlation == found.correlation]
    if not allowed:
        return Recommendation(rule, bounds, None, named)
    best = max(allowed, key=lambda one: candidates[one].correlation)
    near = [one for one in allowed if one != best and not _difference(chosen, best, one).excludes_zero]
    taken = max((best, *near), key=lambda one: float(stacked(chosen.parts, f"rho.{one}").median()))
    score, effect = _main_tables(reported, taken)
    return Recommendation(
        rule,
        bounds,
        str(taken),
        named,
        str(best),
        tuple(str(one) for one in near),
        "bounds" if len(near) == len(allowed) - 1 else "convention" if near else "correlation",
        correlation_estimate(score, effect, reported.concepts, draws=reported.draws),
        {str(one): _difference(reported, taken, one) for one in strengths if one != taken},
    )


def _candidate(half: Half, strength: Strength, bounds: Bounds) -> Candidate:
    correlation = mean_correlation(*_main_tables(half, strength))
    fidelity = float(half.fidelity(strength).mean() / half.clean_fidelity().mean())
    atypical = float((half.percentiles(str(strength))["nearest"] > ATYPICAL).double().mean())
    within = fidelity >= bounds.fidelity and atypical <= bounds.atypical
    return Candidate(correlation, fidelity, atypical, within)


def _main_tables(half: Half, strength: Strength) -> tuple[Float[Tensor, "P n"], Float[Tensor, "P n"]]:
    score, columns = half.scores(strength, half.main.target)[DECODED]
    return score, half.main.table(half.parts)[:, list(columns)]


def _difference(half: Half, first: Strength, second: Strength) -> Estimate:
    (one, effect), (other, _) = (_main_tables(half, strength) for strength in (first, second))
    return difference_estimate(one, other, effect, half.concepts, draws=half.draws)
