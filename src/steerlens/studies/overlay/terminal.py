"""Results of the overlay study on the terminal."""

from pathlib import Path

from steerlens.studies.overlay.areas import BASE_CURVE, OVERLAY_CURVE
from steerlens.studies.overlay.conclusion import overlay_conclusion
from steerlens.studies.overlay.joint import ONE_SHOT
from steerlens.studies.overlay.orders import chosen_order, retained_name
from steerlens.studies.overlay.results import OverlaySummary
from steerlens.studies.shared.remainder import DROP, remainder_lines
from steerlens.studies.shared.terminal import closing_lines


def overlay_lines(summary: OverlaySummary, folder: Path) -> list[str]:
    """Lines of results: choices, areas of orders, paired differences, similarity with overlay and base."""
    low, high = summary.random_range
    lines = [
        f"{summary.n_pairs} pairs, {summary.n_heads} heads, {summary.ablation} ablation",
        *([f"sparse autoencoder {summary.sae}"] if summary.sae else []),
        *remainder_lines(summary.remainders, DROP, summary.n_heads, summary.sae),
        *(f"  chosen for {lens}: {choice}" for lens, choice in summary.choices.items()),
        "normalised area over the first quarter of heads (0 random, 1 greedy reference), 95 % interval over pairs:",
        f"  {'':36} {'of the objective':22} of the projection",
        *(f"  {row.name:36} {row.area!s:22} {row.projection}" for row in summary.orders),
        f"  {'single random orders':36} {low:+.2f} to {high:+.2f}",
        "paired differences:",
        *(
            f"  {name:46} {estimate}{'' if estimate.excludes_zero else '  (includes 0)'}"
            for name, estimate in summary.differences.items()
        ),
        "similarity with overlay and base, without ablation and after ablating a quarter of the heads:",
    ]
    start = [summary.curves[curve][ONE_SHOT].values[0] for curve in (OVERLAY_CURVE, BASE_CURVE)]
    lines.append(f"  {'none':32} {start[0]:+.2f} {start[1]:+.2f}")
    lines += [f"  {name:32} {left[OVERLAY_CURVE]:+.2f} {left[BASE_CURVE]:+.2f}" for name, left in summary.left.items()]
    if summary.judge is not None:
        compared = "; ".join(f"{chosen_order(lens)}, with {words}" for lens, words in summary.judged_by.items())
        lines.append(f"judged by {summary.judge.name} (weights {summary.judge.sha256[:12]}): compares {compared}")
    if summary.retained:
        lines.append("retaining the first quarter of an order, all other heads ablated; normalised area:")
        lines += [f"  {retained_name(name):46} {area}" for name, area in summary.retained.items()]
    conclusion = overlay_conclusion(summary)
    lines += [] if conclusion is None else conclusion.lines()
    return [*lines, *closing_lines(folder, summary.caution, summary.note)]
