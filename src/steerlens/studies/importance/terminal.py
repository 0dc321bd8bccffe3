"""Results of the importance study on the terminal."""

from pathlib import Path

from steerlens.studies.importance.results import ImportanceSummary
from steerlens.studies.shared.stats import caution
from steerlens.studies.shared.terminal import closing_lines


def importance_lines(summary: ImportanceSummary, folder: Path) -> list[str]:
    """Lines of results: choices, correlations with the main effect, paired differences."""
    given = f" ({summary.setup.given!r})" if summary.setup.given else ""
    lines = [
        f"{summary.n_pictures} pictures of {summary.n_concepts} concepts, {summary.n_heads} heads; effect: "
        f"{summary.main}{given}",
        *summary.setup.notes,
        *(
            f"  chosen for {lens}: {choice}; not decoded: {summary.choices.undecoded[lens]}"
            for lens, choice in summary.choices.decoded.items()
        ),
        "Spearman correlation over heads, mean over pictures, 95 % interval (with other pictures' effects):",
    ]
    rows = [row for row in summary.rows if row.effect == summary.main and row.statistic == "spearman"]
    lines += [
        f"  {row.score + (' *' if row.by_construction else ''):47} {row.estimate}  ({row.mismatched:+.2f})"
        for row in rows
    ]
    if any(row.by_construction for row in rows):
        lines.append(
            "  * compares the requested embedding with the effect's own target: a check of consistency, no evidence"
        )
    lines.append("steering minus diffusion, paired:")
    for difference in summary.differences:
        if difference.statistic == "spearman":
            effect = "" if difference.effect == summary.main else f"  ({difference.effect})"
            zero = "" if difference.estimate.excludes_zero else "  (includes 0)"
            lines.append(f"  {difference.name:47} {difference.estimate}{zero}{effect}")
    for name, estimate in summary.ceiling_share.items():
        lines.append(f"  {f'share of the ceiling, {name}':47} {estimate}")
    return [*lines, *closing_lines(folder, caution(summary.n_concepts))]
