"""Findings of the strength study in words, and its bar; the figures alone decide which sentence is printed."""

from steerlens.studies.shared.markdown import Bar, Finding, interval, on
from steerlens.studies.strength.results import Recommendation, StrengthSummary

_DECIDED = {"bounds": "bounds and convention, not by the correlation", "convention": "a convention among ties"}


def strength_findings(summary: StrengthSummary) -> list[Finding]:
    """Recommended strength, with the reason."""
    rule = summary.recommendation
    return [
        Finding(
            on(
                summary.model,
                f"the rule recommends {rule.strength or 'no strength'} (default: {summary.default}). "
                f"{choice_words(rule)}",
            ),
            headline=True,
        )
    ]


def choice_words(rule: Recommendation) -> str:
    """Sentences on the reason for the recommended strength, and on its own correlation."""
    if rule.strength is None or rule.correlation is None or rule.decided is None:
        return "No strength of the sweep satisfies the bounds."
    bounds, ties = rule.bounds, ", ".join(rule.runners_up)
    within = [name for name, candidate in rule.candidates.items() if candidate.within]
    others = [difference for name, difference in (rule.differences or {}).items() if name in within]
    apart = f"{sum(difference.above() for difference in others)} of {len(others)}"
    undecided = f"it does not separate the strengths within the bounds ({', '.join(within)})"
    if len(within) == 1:
        undecided = f"only {within[0]} satisfies the bounds"
    decided = {
        "correlation": f"The correlation decided: on the selection, {rule.best} does better than every other strength "
        f"within the bounds; on other concepts, it does better than {apart}.",
        "convention": f"On the selection, {rule.best} has the largest correlation, but {ties} cannot be distinguished "
        "from it. Among these, a convention decided: take the strength that moves embeddings farthest.",
        "bounds": f"**The correlation did not decide**: {undecided}. The choice follows from two bounds, which are set "
        f"and not measured (a fidelity of at least {bounds.fidelity:g} of the clean pictures', and a share of at most "
        f"{bounds.atypical:g} atypical embeddings), and from a convention: take the strength that moves embeddings "
        "farthest.",
    }
    own = rule.correlation
    words = f"{decided[rule.decided]} On other concepts, its correlation is {interval(own)}"
    if not own.excludes_zero:
        return f"{words}. **The interval includes 0**, so no correlation is shown."
    if not own.above():
        return f"{words}. **The interval lies below 0**: its pictures rank heads in the wrong order."
    return f"{words}."


def strength_bars(summary: StrengthSummary) -> list[Bar]:
    """Recommended strength on the verdict page."""
    rule, default = summary.recommendation, summary.default
    what = "strength: value recommended by the rule"
    words = f"{rule.strength or 'none within the bounds'}; the default is {default}"
    if rule.strength is None:
        return [Bar(what, words, "reported", "")]
    verdict = "kept" if rule.strength == default else "DIFFERS"
    decided = f", by {_DECIDED[rule.decided]}" if rule.decided in _DECIDED else ""
    return [Bar(what, words, "reported", f"{verdict}{decided}")]
