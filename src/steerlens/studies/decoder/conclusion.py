"""Conclusion of the decoder study in plain sentences; the figures alone decide the words."""

from typing import TYPE_CHECKING

from steerlens.studies.shared.conclusion import Claim, Conclusion
from steerlens.studies.shared.markdown import interval

if TYPE_CHECKING:
    from steerlens.studies.decoder.results import DecoderSummary


def decoder_conclusion(summary: "DecoderSummary") -> Conclusion:
    """Concludes from the number of steps, and from what the decoder invents."""
    model, default, fewest = summary.model or "this model", summary.default, summary.cheapest_steps
    steps = f"{fewest} denoising steps rank heads as well as the slow reference"
    if fewest is None:
        steps = "no number of denoising steps ranks heads as well as the slow reference agrees with itself"
    advice = f"keep the default, {default.steps} steps"
    if fewest is not None and fewest > default.steps:
        advice = f"take {fewest} steps (--steps {fewest}) where ranks of heads matter"
    return Conclusion(
        (
            f"On {model}, {steps}; the default, {default.steps} steps, reaches {interval(default.own.share)} of that.",
            f"The decoder invents at least {interval(summary.invented)} of a picture: other noise, another picture.",
            f"Ranks of heads without decoding agree with those of pictures by {interval(summary.undecoded)} only.",
            f"The slow reference, {summary.reference.steps} steps, agrees with its own other seeds by "
            f"{interval(summary.reference.own.rank_correlation)} (rank correlation over heads).",
            f"Measured on {summary.n_pictures} pictures; 95 % intervals in brackets.",
        ),
        f"{advice}, and rank heads without decoding unless the question is about pictures.",
    )


def decoder_claims(summary: "DecoderSummary") -> list[Claim]:
    """Claims that are compared between models."""
    return [
        Claim("Ranking heads without decoding agrees with ranking them by pictures", summary.undecoded),
        Claim("The default number of steps ranks heads as the slow reference does", summary.default.own.share, 0.95),
    ]
