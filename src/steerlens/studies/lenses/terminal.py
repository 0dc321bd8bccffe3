"""Results of the study of candidate lenses on the terminal."""

from pathlib import Path

from steerlens.studies.lenses.results import LensesSummary
from steerlens.studies.shared.stats import caution
from steerlens.studies.shared.terminal import closing_lines


def lenses_lines(summary: LensesSummary, folder: Path) -> list[str]:
    """Lines of results: correlations, transfer, and the conclusion."""
    lines = [
        f"{summary.n_pictures} pictures of {summary.n_concepts} concepts, {summary.n_studied} of {summary.n_heads} "
        f"heads, {summary.n_names} names, {summary.n_bank} real pictures",
        "correlation over heads with the effect of ablation on each name:",
    ]
    for row in summary.rows:
        over = "" if row.over_picture is None else f"  minus one picture {row.over_picture}"
        lines.append(f"  {row.label:46} {row.correlation!s:24}{over}")
    if summary.transfer:
        lines.append("share of a requested change that decoded pictures return (cosine), by size:")
    lines += [f"  {row.name:46} {row.size:5.2f}  {row.transfer}" for row in summary.transfer]
    return [*lines, *summary.conclusion.lines(), *closing_lines(folder, caution(summary.n_concepts))]
