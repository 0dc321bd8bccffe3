"""Page of the overlay study: choices, orders by both measures, paired differences, and the judge."""

from collections.abc import Iterable

from steerlens.studies.overlay.orders import retained_name
from steerlens.studies.overlay.results import OverlaySummary
from steerlens.studies.overlay.scores import COMPARISONS
from steerlens.studies.shared.candidates import SCORE_WORDS, readable
from steerlens.studies.shared.markdown import (
    attenuation_table,
    candidates_table,
    figure,
    interval,
    judged_by,
    signed,
    table,
)
from steerlens.studies.shared.remainder import DROP, remainder_lines
from steerlens.studies.shared.stats import Estimate


def overlay_section(summary: OverlaySummary) -> str:
    """Writes the page of the study below its findings."""
    low, high = summary.random_range
    lines = [
        f"{summary.n_pairs} pairs of a base and an overlay, {summary.n_heads} heads, {summary.ablation} "
        "ablation. The figure of an order is the area of the objective's drop over the first quarter of the heads, "
        "normalised to 0 for random orders and 1 for the greedy reference, which is not the optimum. 95 % intervals: "
        "bootstrap over pairs, which treats pairs with a common picture as independent.\n",
        f"    {summary.command or 'steerlens study overlay --data DATA --out studies/overlay'}\n",
        *(f"{line}\n" for line in remainder_lines(summary.remainders, DROP, summary.n_heads, summary.sae)),
        figure("Normalised area of every order", "overlay-orders"),
        "## Choices\n",
        table(
            ["lens", "setting", "compared with", "area on the selection"],
            [
                [lens, str(choice.setting), COMPARISONS[choice.compare], signed(choice.area)]
                for lens, choice in summary.choices.items()
            ],
        ),
        "All candidates, on the selection:\n",
        candidates_table(summary.choices, "normalised area"),
        "## Orders of heads\n",
        f"{SCORE_WORDS}\n",
        overlay_orders(summary),
        f"Single random orders lie between {low:+.2f} and {high:+.2f}. Steering Lens minus Diffusion Lens, with chosen "
        f"settings{'' if summary.decodes else ', not decoded'}: {interval(summary.difference)}.\n",
        table(
            ["paired difference", "area"],
            [[readable(name), interval(estimate)] for name, estimate in summary.differences.items()],
        ),
        *_retained(summary),
        *_decoding(summary),
    ]
    return "\n".join(lines)


def _decoding(summary: OverlaySummary) -> list[str]:
    """What decoding adds; without a decoder, the trajectories of the embedding alone."""
    trajectories = figure("Trajectories of the embedding", "overlay-trajectories")
    if not summary.decodes:
        return [trajectories]
    return [
        "## Effect of decoding\n",
        attenuation_table(
            summary.attenuation,
            "each head's own effect on the objective",
            {row.score: readable(row.score) for row in summary.attenuation},
        ),
        trajectories,
        figure("Trajectories of decoded pictures", "overlay-decoded"),
        figure("Decoded pictures along each order", "overlay-strip-0"),
    ]


def _retained(summary: OverlaySummary) -> list[str]:
    if not summary.retained:
        return []
    rows = sorted(summary.retained.items(), key=lambda item: (not item[1].defined, -item[1].value))
    return [
        "## Retaining heads instead of removing them\n",
        "The same orders the other way: all heads are ablated but the first of the order, and the overlay should come "
        "back. The area is that of the objective's rise, on the same scale; the greedy reference was searched for "
        "removal, and is no optimum here.\n",
        table(
            ["order", "normalised area, retained"],
            [[readable(retained_name(name)), interval(area)] for name, area in rows],
        ),
        *_without_interval(area for _, area in rows),
        figure("Trajectories with the first heads retained", "overlay-retained"),
    ]


def _without_interval(areas: Iterable[Estimate]) -> list[str]:
    """Explains areas without an interval."""
    if not any(area.defined and area.low != area.low for area in areas):
        return []
    return [
        "Areas without an interval have an uncertain scale: the greedy reference is not shown to exceed random orders "
        "there, so that shares of its distance from them say little.\n"
    ]


def overlay_orders(summary: OverlaySummary) -> str:
    """Writes every order of heads with its areas, of the objective and of the projection."""
    rows = [
        [readable(row.name), interval(row.area), interval(row.projection), f"{row.drop:+.3f}"] for row in summary.orders
    ]
    lines = [
        table(["order", "normalised area", "of the projection", "mean drop of the objective"], rows),
        "The projection of the embedding onto embedding(base + overlay) - embedding(base) serves as a check of the "
        "objective: it is not used to order heads or to choose settings. *Not decoded* orders use the setting that "
        "undecoded scores choose from the same candidates; *the same not decoded* the setting chosen for decoding.\n",
        *_without_interval(row.projection for row in summary.orders),
        *judged_by(summary.judge),
    ]
    if summary.judged_by:
        words = "; ".join(f"{lens}: {compared}" for lens, compared in summary.judged_by.items())
        lines.append(f"The judge compares pictures of the chosen settings with: {words}.\n")
    warnings = (summary.caution, summary.note)
    lines += [f"**{words[0].upper()}{words[1:].rstrip('.')}.**\n" for words in warnings if words]
    return "\n".join(lines)
