"""Conclusion of the decoder study in plain sentences; the figures alone decide the words."""

from typing import TYPE_CHECKING

from steerlens.studies.shared.conclusion import Claim, Conclusion, cautioned
from steerlens.studies.shared.markdown import interval, signed
from steerlens.studies.shared.stats import caution

if TYPE_CHECKING:
    from steerlens.studies.decoder.results import DecoderSummary


def decoder_conclusion(summary: "DecoderSummary") -> Conclusion:
    """Concludes from the number of steps, and from what the decoder invents."""
    model, default, fewest = summary.model or "this model", summary.default, summary.cheapest_steps
    own, wanted = default.own.share, summary.wanted
    advice = f"keep the default, {default.steps} steps"
    if fewest is not None and fewest > default.steps:
        advice = f"take {fewest} steps (--steps {fewest}) where ranks of heads matter"
    few = bool(caution(summary.n_concepts))
    if own.above(wanted) and not few:
        verdict = f"ranks heads as well as the slow reference agrees with itself, within {1 - wanted:.0%}"
    elif own.excludes(wanted) and not few:
        verdict = "ranks heads worse than the slow reference agrees with itself"
    else:
        verdict = "is neither shown to rank heads as well as the slow reference agrees with itself, nor to rank worse"
    return Conclusion(
        (
            f"On {model}, the default of {default.steps} denoising steps {verdict}: it reaches {interval(own)} of that "
            f"(wanted: {wanted:g}); {_steps(summary)}.",
            _invented(summary),
            _undecoded(summary),
            f"The slow reference, {summary.reference.steps} steps, agrees with its own other seeds by "
            f"{interval(summary.reference.own.rank_correlation)} (rank correlation over heads).",
            f"Measured on {summary.n_pictures} pictures; 95 % intervals in brackets{_caution(summary)}.",
        ),
        f"{advice}, and {_ranking(summary)}.",
    )


def _steps(summary: "DecoderSummary") -> str:
    """Numbers of steps that are enough, by point estimate and by interval."""
    fewest, certain = summary.cheapest_steps, summary.certain_steps
    if certain is not None:
        return f"{certain} steps are enough, by the whole interval"
    if fewest is not None:
        return f"{fewest} steps are enough by point estimate, but by no interval"
    return "no number of steps reaches it, not even by point estimate"


def _invented(summary: "DecoderSummary") -> str:
    """How far other noise moves a picture, beside how far another input moves it."""
    text = (
        "With other noise, pictures of the same embedding agree by "
        f"{interval(summary.default.own.agreement)} (cosine of their embeddings)"
    )
    unrelated = summary.default.own.unrelated
    if unrelated == unrelated:
        text += f", where pictures of different inputs agree by {signed(unrelated)}"
    return f"{text}. At least what is missing to 1 is invented."


def _undecoded(summary: "DecoderSummary") -> str:
    agreement = interval(summary.undecoded)
    if not summary.undecoded.excludes_zero or caution(summary.n_concepts):
        return f"Ranks of heads without decoding are not shown to agree with those of pictures ({agreement})."
    return f"Ranks of heads without decoding agree with those of pictures by {agreement}."


def _ranking(summary: "DecoderSummary") -> str:
    """How to rank heads; without decoding only if both rankings are shown to agree."""
    if summary.undecoded.above() and not caution(summary.n_concepts):
        return "rank heads without decoding unless the question is about pictures"
    return "rank heads by pictures if the question is about pictures, else by embeddings: neither replaces the other"


def _caution(summary: "DecoderSummary") -> str:
    return ", which are too narrow for so few concepts" if caution(summary.n_concepts) else ""


def decoder_claims(summary: "DecoderSummary") -> list[Claim]:
    """Claims that are compared between models."""
    claims = [
        Claim("Ranking heads by embeddings, without decoding, agrees with ranking them by pictures", summary.undecoded),
        Claim(
            "The default number of denoising steps ranks heads as the slow reference does",
            summary.default.own.share,
            summary.wanted,
        ),
    ]
    return cautioned(claims, summary.n_concepts)
