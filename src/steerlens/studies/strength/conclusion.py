"""Conclusion of the strength study in plain sentences; the figures alone decide the words."""

from typing import TYPE_CHECKING

from steerlens.studies.shared.conclusion import Claim, Conclusion
from steerlens.studies.shared.markdown import interval

if TYPE_CHECKING:
    from steerlens.studies.strength.results import StrengthSummary


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
    shown = "no correlation is shown" if not rule.correlation.above() else "its pictures tell something of effects"
    why = {
        "correlation": "The correlation with the effects of ablation decided.",
        "convention": "Several strengths did as well, and a convention decided among them.",
        "bounds": "The correlation did not decide: two bounds that we set and a convention did.",
    }[rule.decided or "bounds"]
    return Conclusion(
        (
            f"On {model}, the rule recommends {rule.strength}, {same}.",
            why,
            f"On other concepts its correlation with the effects of ablation is {interval(rule.correlation)}: {shown}.",
            "A strength is one share of the residual (rho) for all heads; one factor (s) for all heads is swept too.",
            measured,
        ),
        "keep the recommended strength for pictures, and do not read the sizes of effects from them.",
    )


def strength_claims(summary: "StrengthSummary") -> list[Claim]:
    """Claims that are compared between models."""
    own = summary.recommendation.correlation
    return [] if own is None else [Claim("Pictures of the recommended strength predict the signed effect", own)]
