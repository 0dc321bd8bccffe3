"""Page of the study of candidate lenses: choices, correlations with effects on names, and transfer."""

from steerlens.studies.lenses.results import LensesSummary
from steerlens.studies.shared.markdown import candidates_table, figure, interval, judged_by, signed, table
from steerlens.studies.shared.stats import caution


def lenses_section(summary: LensesSummary) -> str:
    """Writes the page of the study below its findings."""
    heads = f"{summary.n_studied} of {summary.n_heads}" if summary.n_studied < summary.n_heads else f"{summary.n_heads}"
    warning = caution(summary.n_concepts)
    lines = [
        *([figure("Contrast pairs and real pictures of single heads", "lenses-pictures")] if summary.decodes else []),
        f"{summary.n_pictures} pictures of {summary.n_concepts} concepts, {heads} heads, {summary.n_names} names "
        f"(directions: {summary.names}), {summary.n_bank} real pictures that are not studied; "
        f"{_seeds(summary)}. The effect of a head on a name is the similarity that ablating the "
        f"head costs (total, {summary.ablation} ablation). Spearman correlations are taken over the heads of a "
        f"picture, for every name, and averaged over names and pictures. 95 % intervals: {summary.bootstrap}."
        f"{f' **{warning.capitalize()}.**' if warning else ''}\n",
        *judged_by(summary.judge),
        f"    {summary.command or 'steerlens study lenses --data DATA --out studies/lenses'}\n",
        "## Choices\n",
        f"Each lens' setting was chosen on {summary.n_selection} pictures of other concepts, and then frozen.\n",
        table(
            ["lens", "setting", "correlation on the selection"],
            [[name, str(choice.setting), signed(choice.correlation)] for name, choice in summary.choices.items()],
        ),
        "All candidates, on the selection:\n",
        candidates_table(summary.choices, "correlation"),
        "## Correlations with the effect on names\n",
        table(
            ["lens", "correlation", "minus one picture"],
            [
                [
                    row.label,
                    interval(row.correlation),
                    "" if row.over_picture is None else interval(row.over_picture),
                ]
                for row in summary.rows
            ],
        ),
        "*Not decoded* compares requested embeddings: what a decoder that returned them would show. The norm of the "
        "write and the layer are one score for all names; since directions of names are centred, their mean "
        "correlation is near 0 by construction, so a lens that exceeds them shows nothing by that.\n",
        *_transfer(summary),
    ]
    return "\n".join(lines)


def _seeds(summary: LensesSummary) -> str:
    return f"decoder seeds {', '.join(map(str, summary.seeds))}" if summary.decodes else "nothing is decoded"


def _transfer(summary: LensesSummary) -> list[str]:
    """How much of a change comes back; nothing without a decoder."""
    if not summary.transfer:
        return []
    return [
        "## Transfer\n",
        "Cosine between the requested change of the embedding and the change that comes back after decoding and "
        "encoding again, from the same noise. A contrast pair is counted from its one end to the other.\n",
        table(
            ["change", "size, share of the distance between two scenes", "transfer"],
            [[row.name, f"{row.size:.2f}", interval(row.transfer)] for row in summary.transfer],
        ),
    ]
