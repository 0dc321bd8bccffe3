"""Conclusion of the strength study in plain sentences; the figures alone decide the words."""

from typing import TYPE_CHECKING

from steerlens.studies.shared.conclusion import Claim, Conclusion, cautioned, joined
from steerlens.studies.shared.markdown import interval, percent
from steerlens.studies.shared.partial import LAYER, NORM, RAW
from steerlens.studies.shared.stats import Estimate
from steerlens.studies.strength.scores import NEAREST, UNDECODED, UNDECODED_SAME

if TYPE_CHECKING:
    from steerlens.studies.strength.results import StrengthSummary, SweepPoint


def strength_conclusion(summary: "StrengthSummary") -> Conclusion:
    """Concludes from the rule's recommendation."""
    rule, model = summary.recommendation, summary.model or "this model"
    measured = (
        f"Measured on {summary.n_pictures} pictures and {summary.n_decoded} decoded heads of each; 95 % intervals in "
        "brackets."
    )
    if rule.strength is None or rule.correlation is None:
        return Conclusion(
            (
                f"On {model}, no strength of the sweep keeps embeddings close to real ones and pictures faithful.",
                f"The default, {summary.default}, was not confirmed.",
                measured,
            ),
            "sweep weaker strengths (--rho), or look at the decoder first: steerlens study decoder.",
        )
    same = "the default" if rule.strength == summary.default else f"not the default, {summary.default}"
    own, shown = rule.correlation, "no correlation is shown"
    if own.excludes_zero:
        shown = "its pictures tell something of effects" if own.above() else "its pictures rank heads in reverse"
    why = {
        "correlation": "the correlation with the effects of ablation decided",
        "convention": "several strengths did as well, and a convention decided among them",
        "bounds": "the correlation with the effects of ablation did not decide, but two bounds that we set and a "
        "convention",
    }[rule.decided or "bounds"]
    return Conclusion(
        (
            f"On {model}, the rule recommends {rule.strength}, {same}: {why}; on other concepts the correlation is "
            f"{interval(own)}, so {shown}.",
            *_undecoded(summary, rule.strength),
            *_kept(summary, rule.strength),
            *_baselines(summary),
            measured,
        ),
        _next_step(summary, rule.strength, own),
    )


def _next_step(summary: "StrengthSummary", strength: str, correlation: Estimate) -> str:
    """What to steer with, and whether pictures tell effects; from the same figures as the verdict."""
    reading = "do not read effects of ablation from pictures of any strength"
    if correlation.above():
        reading = "read ranks of effects from its pictures, but not sizes"
    if strength == summary.default:
        return f"keep the default, {strength}, and {reading}."
    if correlation.above():
        return f"steer with {strength} instead of the default, and {reading}."
    return (
        f"take {strength} where steered embeddings should stay close to real ones, else keep the default, "
        f"{summary.default}; {reading}."
    )


def _undecoded(summary: "StrengthSummary", strength: str) -> list[str]:
    """What the embeddings tell of the same effect before decoding, over the same heads."""
    for score in (UNDECODED_SAME, UNDECODED):
        own = summary.correlation(strength, score, summary.target, summary.main, "spearman")
        if own is not None:
            return [f"Before decoding, the same embeddings correlate with the same effect by {interval(own)}."]
    return []


def _kept(summary: "StrengthSummary", strength: str) -> list[str]:
    """How faithful pictures of a strength are, and how unusual its embeddings."""
    points = {point.strength: point for point in summary.points}
    if strength not in points:
        return []
    text = f"Its pictures have a fidelity of {_faithful(points[strength])}"
    if (default := points.get(summary.default)) is not None and summary.default != strength:
        text += f"; at the default, {summary.default}, it is {_faithful(default)}"
    return [
        f"{text} (without steering the fidelity is {interval(summary.clean_fidelity)}; atypical: farther from real "
        "embeddings than 95 % of these are from each other)."
    ]


def _faithful(point: "SweepPoint") -> str:
    return f"{interval(point.fidelity)}, and {percent(point.typicality[NEAREST].beyond)} of the embeddings are atypical"


def _baselines(summary: "StrengthSummary") -> list[str]:
    """What the norm of the write and the layer reach for the same effect; nothing in summaries of earlier versions."""
    rows = {row.score: row.estimates.get(RAW) for row in summary.baselines if row.effect == summary.main}
    words = [f"{name} {interval(own)}" for name in (NORM, LAYER) if (own := rows.get(name)) is not None]
    return [f"Without a lens, correlations with the same effect are: {joined(words)}."] if words else []


def strength_claims(summary: "StrengthSummary") -> list[Claim]:
    """Claims that are compared between models."""
    own = summary.recommendation.correlation
    what = "Pictures steered with the recommended strength predict how much similarity with the target ablation costs"
    return [] if own is None else cautioned([Claim(what, own)], min(summary.n_concepts, summary.n_selection_concepts))
