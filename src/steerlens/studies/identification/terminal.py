"""Results of the identification study on the terminal."""

from pathlib import Path

from steerlens.studies.identification.conclusion import lens_words, share
from steerlens.studies.identification.results import VIEW_WORDS, IdentificationSummary
from steerlens.studies.shared.stats import caution
from steerlens.studies.shared.targets import INPUT
from steerlens.studies.shared.terminal import closing_lines


def identification_lines(summary: IdentificationSummary, folder: Path) -> list[str]:
    """Lines of results: the conclusion, every lens, and the share by layer."""
    lines = [
        f"{summary.n_pictures} pictures of {summary.n_concepts} concepts, {summary.n_studied} of {summary.n_heads} "
        f"heads, {summary.strength}; {_compared(summary)}",
        f"{'own write closer to the input than':46} {'another picture' + chr(39) + 's write':24} a random direction",
    ]
    for row in summary.rows:
        if row.compare == INPUT:
            name = f"{lens_words(row.lens)}, {VIEW_WORDS[row.view]}"
            random = "" if row.own_against_random is None else share(row.own_against_random)
            lines.append(f"{name:46} {share(row.share):24} {random}")
    by_layer = " ".join(f"{estimate.value:.0%}" for estimate in summary.main.by_layer)
    view = VIEW_WORDS[summary.main_view]
    lines += [
        f"by layer ({summary.layers[0]} to {summary.layers[-1]}), {view}: {by_layer}",
        *summary.conclusion.lines(),
    ]
    return [*lines, *closing_lines(folder, caution(summary.n_concepts))]


def _compared(summary: IdentificationSummary) -> str:
    if not summary.seeds:
        return "nothing decoded; each compared with every picture of another concept"
    foils = "1 other write" if summary.n_foils == 1 else f"{summary.n_foils} other writes"
    return f"each decoded picture compared with those of {foils}"
