"""Results of the strength study on the terminal."""

from pathlib import Path

from steerlens.studies.shared.stats import caution
from steerlens.studies.shared.terminal import closing_lines
from steerlens.studies.strength.conclusion import strength_conclusion
from steerlens.studies.strength.results import StrengthSummary
from steerlens.studies.strength.scores import DECODED, MAHALANOBIS, NEAREST


def strength_lines(summary: StrengthSummary, folder: Path) -> list[str]:
    """Lines of results: the sweep, the rule and its recommendation."""
    lines = [
        f"{summary.n_pictures} pictures of {summary.n_concepts} concepts, {summary.n_decoded} of {summary.n_heads} "
        f"heads decoded; effect: {summary.main}",
        f"clean pictures: fidelity {summary.clean_fidelity}",
        f"{'strength':10} {'correlation, decoded':24} {'fidelity':24} beyond 95 % of real embeddings",
    ]
    for point in summary.points:
        beyond = {kind: typicality.beyond.value for kind, typicality in point.typicality.items()}
        shares = f"nearest {beyond[NEAREST]:.0%}, Mahalanobis {beyond[MAHALANOBIS]:.0%}"
        correlation = summary.correlation(point.strength, DECODED, summary.target, summary.main, "spearman")
        lines.append(f"{point.strength:10} {correlation!s:24} {point.fidelity!s:24} {shares}")
    rule = summary.recommendation
    lines.append(f"rule: {rule.rule}")
    if rule.strength is None:
        lines.append("no strength of the sweep satisfies the bounds: none is recommended.")
    else:
        none = "" if rule.correlation is None or rule.correlation.excludes_zero else " (includes 0)"
        lines += [
            f"recommended: {rule.strength}, on other concepts {rule.correlation}{none}; default: {summary.default}",
            f"best on the selection: {rule.best}; not distinguishable from it: {', '.join(rule.runners_up) or 'none'}",
            f"decided by: the {rule.decided}",
        ]
    return [
        *lines,
        *strength_conclusion(summary).lines(),
        *closing_lines(folder, caution(min(summary.n_concepts, summary.n_selection_concepts))),
    ]
