"""Summary of the strength study, computed from its stored parts, and the rule that recommends a strength.

Scores are similarities of decoded pictures, and of requested embeddings, with the input and with the target of the
signed effect. The rule chooses on one half of the concepts; its choice is reported on the other half.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from steerlens.lenses import Strength
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.stats import (
    Estimate,
    correlation_estimate,
    difference_estimate,
    interaction,
    mean_correlation,
    mean_estimate,
    spearman,
)
from steerlens.studies.shared.targets import INPUT
from steerlens.studies.strength.options import Bounds
from steerlens.studies.strength.results import (
    Recommendation,
    StrengthCandidate,
    StrengthCorrelation,
    SweepPoint,
    Typical,
)
from steerlens.studies.strength.scores import DECODED, NEAREST, Half

ATYPICAL = 95.0
"""Percentile of real embeddings' distances beyond which an embedding counts as atypical."""


def typical(half: Half, strength: Strength | None) -> dict[str, Typical]:
    """Typicality of a strength's steered embeddings, or of the clean embeddings for None."""

    def estimate(table: Tensor) -> Estimate:
        return mean_estimate(table, half.concepts, draws=half.draws)

    return {
        kind: Typical(estimate(table), estimate((table > ATYPICAL).double()))
        for kind, table in half.percentiles(strength).items()
    }


def sweep_point(half: Half, strength: Strength) -> SweepPoint:
    """Similarity, fidelity and typicality at one strength."""

    def estimate(table: Tensor) -> Estimate:
        return mean_estimate(table, half.concepts, draws=half.draws)

    similarity: dict[str, dict[str, Estimate]] = {}
    for compare in (INPUT, half.main.target):
        for score, (table, _) in half.scores(strength, compare).items():
            similarity.setdefault(score, {})[compare] = estimate(table)
    return SweepPoint(
        strength=str(strength),
        kind=strength.kind,
        value=strength.value,
        rho=float(half.tables.rho(strength).median()),
        similarity=similarity,
        fidelity=estimate(half.fidelity(strength)),
        typicality=typical(half, strength),
    )


def correlations_of(half: Half, strength: Strength) -> list[StrengthCorrelation]:
    """Correlations of every score of a strength with both effects, with and without head and picture means."""
    effects = half.effects()
    return [
        StrengthCorrelation(
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


def rule_words(bounds: Bounds, main: Effect) -> str:
    """The rule in words, without the final full stop."""
    return (
        f"A strength is allowed if its mean fidelity is at least {bounds.fidelity:g} of the clean pictures', and if at "
        f"most a share of {bounds.atypical:g} of its steered embeddings lies beyond the {ATYPICAL:g}th percentile of "
        "real embeddings' nearest-neighbour distances. The best allowed strength has the largest Spearman correlation "
        f"over heads, mean over pictures, between the decoded pictures' similarity with the target ({main.target}) and "
        f"the effect of ablation ({main}). Other allowed strengths may be indistinguishable from it: the 95 % interval "
        "of the paired difference includes 0. Among these and the best, a convention decides: take the strength that "
        "moves embeddings farthest, since pictures of a weaker strength show little but the input"
    )


def recommend(selection: Half, reported: Half, strengths: Sequence[Strength], bounds: Bounds) -> Recommendation:
    """Chooses a strength by the rule on one half of the concepts, and reports it on the other."""
    rule = rule_words(bounds, selection.main)
    candidates = {strength: _candidate(selection, strength, bounds) for strength in strengths}
    named = {str(strength): candidate for strength, candidate in candidates.items()}
    allowed = [
        strength
        for strength, candidate in candidates.items()
        if candidate.within and candidate.correlation == candidate.correlation
    ]
    if not allowed:
        return Recommendation(rule, bounds, None, named)
    best = max(allowed, key=lambda strength: candidates[strength].correlation)
    near = [other for other in allowed if other != best and not _difference(selection, best, other).excludes_zero]
    taken = max((best, *near), key=lambda strength: float(selection.tables.rho(strength).median()))
    score, effect = _main_tables(reported, taken)
    return Recommendation(
        rule,
        bounds,
        str(taken),
        named,
        str(best),
        tuple(map(str, near)),
        "bounds" if len(near) == len(allowed) - 1 else "convention" if near else "correlation",
        correlation_estimate(score, effect, reported.concepts, draws=reported.draws),
        {str(other): _difference(reported, taken, other) for other in strengths if other != taken},
    )


def _candidate(half: Half, strength: Strength, bounds: Bounds) -> StrengthCandidate:
    correlation = mean_correlation(*_main_tables(half, strength))
    fidelity = float(half.fidelity(strength).mean() / half.clean_fidelity().mean())
    atypical = float((half.percentiles(strength)[NEAREST] > ATYPICAL).double().mean())
    within = fidelity >= bounds.fidelity and atypical <= bounds.atypical
    return StrengthCandidate(correlation, fidelity, atypical, within)


def _main_tables(half: Half, strength: Strength) -> tuple[Float[Tensor, "P n"], Float[Tensor, "P n"]]:
    score, columns = half.scores(strength, half.main.target)[DECODED]
    return score, half.main.table(half.tables)[:, list(columns)]


def _difference(half: Half, first: Strength, second: Strength) -> Estimate:
    (score, effect), (other, _) = (_main_tables(half, strength) for strength in (first, second))
    return difference_estimate(score, other, effect, half.concepts, draws=half.draws)
