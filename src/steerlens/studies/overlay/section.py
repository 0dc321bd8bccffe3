"""What the page of results prints of the overlay study beside its choices: orders by both measures, and the judge."""

from steerlens.studies.decoder.section import judged_by
from steerlens.studies.shared.caution import caution
from steerlens.studies.shared.markdown import Json, interval, table


def overlay_orders(summary: Json) -> str:
    """Every order of heads with its area, of the objective and of the projection, and what must be known of them."""
    rows = [
        [row["name"], interval(row["area"]), interval(row["projection"]), f"{row['drop']:+.3f}"]
        for row in summary["orders"]
    ]
    lines = [
        table(["order", "normalised area", "of the projection", "mean drop of the objective"], rows),
        "The projection of the embedding onto embedding(base + overlay) - embedding(base), by which nothing was "
        "ordered or chosen, checks the objective. *Not decoded* orders go by the setting that each lens chose, from "
        "the same candidates, by its undecoded scores; *the same not decoded* by the setting chosen for decoding.\n",
        *judged_by(summary),
    ]
    if summary["judged_by"]:
        words = "; ".join(f"{lens}: {what}" for lens, what in summary["judged_by"].items())
        lines.append(f"What it compared the chosen settings' pictures with: {words}.\n")
    warnings = (caution(summary["n_concepts"]), summary["note"])
    lines += [f"**{warned[0].upper()}{warned[1:].rstrip('.')}.**\n" for warned in warnings if warned]
    return "\n".join(lines)
