"""Findings of the strength study in words, and its bar; which sentence is printed depends on the figures alone."""

from steerlens.studies.shared.markdown import Bar, Finding, interval
from steerlens.studies.strength.results import Recommendation, StrengthSummary

_DECIDED = {"bounds": "bounds and convention: the correlation did not decide", "convention": "a convention among ties"}


def strength_findings(summary: StrengthSummary) -> list[Finding]:
    """The recommendation, and what decided for it."""
    rule = summary.recommendation
    return [
        Finding(
            f"The strength that the rule recommends: {rule.strength or 'none'} (default: {summary.default}). "
            f"{choice_words(rule)}",
            headline=True,
        )
    ]


def choice_words(rule: Recommendation) -> str:
    """Sentences on what decided for the recommended strength, and on whether its own correlation is shown at all."""
    if rule.strength is None or rule.correlation is None or rule.decided is None:
        return "No strength of the sweep keeps to the bounds."
    bounds, ties = rule.bounds, ", ".join(rule.runners_up)
    within = [name for name, candidate in rule.candidates.items() if candidate.within]
    others = [difference for name, difference in (rule.differences or {}).items() if name in within]
    apart = f"{sum(difference.above() for difference in others)} of {len(others)}"
    undecided = f"it cannot tell the strengths within the bounds apart ({', '.join(within)})"
    if len(within) == 1:
        undecided = f"only {within[0]} keeps to the bounds"
    decided = {
        "correlation": f"The correlation decided: where it was chosen, {rule.best} does better than every other one "
        f"within the bounds; on other concepts that holds against {apart}.",
        "convention": f"The correlation left {rule.best}, the best where it was chosen, and {ties}, which cannot be "
        "told from it; among these the convention decided: the one that moves embeddings farthest.",
        "bounds": f"**The correlation did not decide**: {undecided}. The bounds decided, a fidelity of at least "
        f"{bounds.fidelity:g} of the clean pictures' and a share of at most {bounds.atypical:g} atypical embeddings, "
        "which are set and not measured, and the convention to take the one that moves embeddings farthest.",
    }
    own = rule.correlation
    words = f"{decided[rule.decided]} On other concepts its correlation is {interval(own)}"
    if not own.excludes_zero:
        return f"{words}, **which includes 0**: no correlation is shown for it."
    if not own.above():
        return f"{words}, **which lies below 0**: its pictures rank heads in the wrong order."
    return f"{words}."


def strength_bars(summary: StrengthSummary) -> list[Bar]:
    """The recommended strength on the verdict page."""
    rule, default = summary.recommendation, summary.default
    what = "strength: recommended by the rule"
    words = f"{rule.strength or 'none within the bounds'}; the default is {default}"
    if rule.strength is None:
        return [Bar(what, words, "reported", "")]
    verdict = "kept" if rule.strength == default else "DIFFERS"
    decided = f", by {_DECIDED[rule.decided]}" if rule.decided in _DECIDED else ""
    return [Bar(what, words, "reported", f"{verdict}{decided}")]
