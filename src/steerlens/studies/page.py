"""`docs/studies.md`, made from the studies' own summaries: no number in it is typed by hand."""

from collections.abc import Callable, Mapping
from pathlib import Path

from steerlens.errors import UsageError
from steerlens.studies.folder import read_json
from steerlens.studies.markdown import Json, excludes, interval, signed, table
from steerlens.studies.page_decoding import decoder_section, strength_section
from steerlens.studies.page_findings import attenuation_table, candidates_table, importance_findings, overlay_findings
from steerlens.studies.removal_summary import COMPARED
from steerlens.sweep.files import atomic_write

STUDIES = ("importance", "overlay", "strength", "decoder")
"""The studies that the page knows, in its order."""

PAIR_FIGURES = "pair.json"
"""The bundled pair's own figures, among the studies, if they were measured."""

_GATE = ("heads that matter", "of them in the last third")

_HEAD = """\
# Does it tell the truth?

A lens is worth what interventions confirm. These are the results of `steerlens study` on the bundled pair; this page is
written by `steerlens study page` from the summaries in [docs/studies](studies), figures included. Run the same commands
on any model and any folder of pictures.

"""


def write_page(studies: Path, out: Path) -> Path:
    """Writes `studies.md`, `studies/NAME.json` and `images/studies/NAME-FIGURE.png`; returns the page's path.

    Args:
        studies: holds a folder for each study, by its name.
        out: where to write.

    Raises:
        UsageError: if none of them is finished.
    """
    found = {name: read_json(studies / name / "summary.json") for name in STUDIES}
    summaries = {name: summary for name, summary in found.items() if summary is not None}
    measured = read_json(studies / PAIR_FIGURES)
    if not summaries:
        raise UsageError(f"{studies} holds no finished study: none of {', '.join(STUDIES)} has a summary.json in it.")
    for name in summaries:
        atomic_write(out / "studies" / f"{name}.json", (studies / name / "summary.json").read_bytes())
        for figure in sorted((studies / name / "figures").glob("*.png")):
            atomic_write(out / "images" / "studies" / f"{name}-{figure.name}", figure.read_bytes())
    if measured is not None:
        atomic_write(out / "studies" / PAIR_FIGURES, (studies / PAIR_FIGURES).read_bytes())
    page = out / "studies.md"
    atomic_write(page, studies_page(summaries, measured).encode())
    return page


def studies_page(summaries: Mapping[str, Json], measured: Json | None = None) -> str:
    """The page as markdown.

    Args:
        summaries: `summary.json` of each study that ran, by the study's name.
        measured: what `steerlens train evaluate --json` says of the pair, for the gate before all studies.
    """
    sections: dict[str, Callable[[Json], str]] = {
        "importance": importance_section,
        "overlay": overlay_section,
        "strength": strength_section,
        "decoder": decoder_section,
    }
    parts = [_HEAD, verdicts(summaries, measured)]
    parts += [sections[name](summary) for name, summary in summaries.items() if name in sections]
    return "\n".join(parts).rstrip() + "\n"


def verdicts(summaries: Mapping[str, Json], measured: Json | None = None) -> str:
    """The bars and whether each is met, on the bundled pair."""
    rows: list[list[str]] = []
    for figure in (measured or {"figures": ()})["figures"]:
        if figure["name"] in _GATE and figure["bar"] is not None:
            met = "met" if figure["value"] >= figure["bar"] else "MISSED"
            what = f"gate: {figure['name']} (`steerlens train evaluate`)"
            rows.append([what, f"{figure['value']:g}", f"{figure['bar']:g}", met])
    if (found := summaries.get("importance")) is not None:
        difference = found["differences"]["chosen; spearman"]
        share = found["ceiling_share"]["chosen"]
        rows.append(
            [
                "importance: DSL minus Diffusion Lens, correlation with the signed total effect, decoded",
                interval(difference),
                "interval excludes 0",
                "met" if excludes(difference) and difference["value"] > 0 else "MISSED",
            ]
        )
        rows.append(
            [
                "importance: DSL as a share of the exact direct effect's correlation (the ceiling), decoded",
                interval(share),
                "aim: 0.8",
                "met" if (share["value"] or 0) >= 0.8 else "MISSED",
            ]
        )
        beats = " ".join(f"{value:.0%}" for value in found["beats_control"])
        rows.append(
            ["heads closer to the input than a random direction steered as hard, by layer", beats, "reported", ""]
        )
    if (found := summaries.get("overlay")) is not None:
        area = found["bar"]
        rows.append(
            [
                "overlay: DSL's normalised area (0 random order, 1 greedy reference)",
                interval(area),
                "interval excludes 0; aim: 0.85",
                "met" if excludes(area) and area["value"] > 0 else "MISSED",
            ]
        )
    if (found := summaries.get("strength")) is not None:
        strength = found["recommendation"]["strength"]
        words = f"{strength or 'none within the bounds'}; the default is {found['default']}"
        verdict = "" if strength is None else "kept" if strength == found["default"] else "DIFFERS"
        rows.append(["strength: what the rule recommends", words, "reported", verdict])
    if (found := summaries.get("decoder")) is not None:
        steps, default = found["cheapest_steps"], found["rows"][0]
        words = f"{'none' if steps is None else steps}; the default is {default['steps']}"
        verdict = "enough" if default["name"] in found["reaching"] else "TOO FEW"
        what = (
            f"decoder: fewest steps that rank heads with {found['wanted']:g} of the reference's agreement with itself"
        )
        rows.append([what, words, "reported", verdict])
    bars = "## The bars\n\n" + table(["what", "on the bundled pair", "bar", ""], rows)
    findings = [
        *(importance_findings(summaries["importance"]) if "importance" in summaries else ()),
        *(overlay_findings(summaries["overlay"]) if "overlay" in summaries else ()),
    ]
    return bars + ("\n" + "\n".join(f"- {finding}" for finding in findings) + "\n" if findings else "")


def importance_section(summary: Json) -> str:
    """Head importance: choices, correlations, paired differences, reliability."""
    main = summary["main"]
    lines = [
        "## Head importance\n",
        "Does a head's picture say what ablating that head does to the embedding? The paper's first study.",
        f"{summary['n_pictures']} pictures of {summary['n_concepts']} concepts, {summary['n_heads']} heads; main "
        f"effect: {main}. Correlations run over the heads of one picture and are averaged over pictures; intervals "
        "draw concepts and heads anew (95 %).\n",
        "    steerlens study importance --data DATA --out studies/importance\n",
        "![Correlation of every score with the effect of ablation](images/studies/importance-correlations.png)\n",
        "Settings were chosen for each lens among as many candidates, on other concepts, and frozen:\n",
        table(
            ["lens", "setting", "compared with", "correlation where it was chosen"],
            [
                [lens, choice["setting"], choice["compare"], f"{choice['correlation']:+.2f}"]
                for lens, choice in summary["choices"].items()
            ],
        ),
        "All candidates, where the choice was made:\n",
        candidates_table(summary["choices"], "correlation"),
        _correlations(summary, main),
        "The last column is the null: the same scores with *other* pictures' effects. *Head means removed* leaves only "
        "what a score says about this picture's head, beyond which heads are large in general.\n",
        "Paired differences, Steering Lens minus Diffusion Lens:\n",
        table(
            ["scores; statistic", "difference"],
            [[name, interval(value)] for name, value in summary["differences"].items()],
        ),
        "Share of the ceiling (the exact direct effect's own correlation with the total effect):\n",
        table(
            ["Steering Lens", "share"], [[name, interval(value)] for name, value in summary["ceiling_share"].items()]
        ),
        "Other notions of importance, Spearman over heads:\n",
        _notions(summary, main),
        "Reliability over decoder seeds (one seed; mean of all seeds, Spearman-Brown):\n",
        table(
            ["score", "one seed", "all seeds"],
            [
                [name, *("" if value is None else f"{value:.2f}" for value in values)]
                for name, values in summary["reliability"].items()
            ],
        ),
        attenuation_table(summary["attenuation"], "the main effect"),
        "![Heads: mean similarity against mean effect](images/studies/importance-heads.png)\n",
        "![Effect and controls by layer](images/studies/importance-layers.png)\n",
    ]
    return "\n".join(lines)


def overlay_section(summary: Json) -> str:
    """Overlay removal: choices, orders, paired differences."""
    low, high = summary["random_range"]
    lines = [
        "## Overlay removal\n",
        "Does ablating heads in a lens' order make an overlay leave, while the base stays? The paper's second study.",
        f"{summary['n_pairs']} pairs of a base and an overlay, {summary['n_heads']} heads, {summary['ablation']} "
        "ablation. The number of an order is the area of the objective's drop over the first quarter of the heads: 0 "
        "for random orders, 1 for the greedy reference, which is not the optimum. Intervals are over pairs (95 %).\n",
        "    steerlens study overlay --data DATA --out studies/overlay\n",
        "![Normalised area of every order](images/studies/overlay-orders.png)\n",
        table(
            ["lens", "setting", "compared with", "area where it was chosen"],
            [
                [
                    lens,
                    choice["setting"],
                    COMPARED[choice["compare"]],
                    f"{choice['area']:+.2f}",
                ]
                for lens, choice in summary["choices"].items()
            ],
        ),
        "All candidates, where the choice was made:\n",
        candidates_table(summary["choices"], "normalised area"),
        table(["order", "normalised area"], [[row["name"], interval(row["area"])] for row in summary["orders"]]),
        f"Single random orders lie between {low:+.2f} and {high:+.2f}. Steering Lens minus Diffusion Lens, chosen: "
        f"{interval(summary['difference'])}.\n",
        table(["paired difference", "area"], [[name, interval(one)] for name, one in summary["differences"].items()]),
        attenuation_table(summary["attenuation"], "each head's own effect on the objective"),
        "![Trajectories of the embedding](images/studies/overlay-trajectories.png)\n",
        "![Trajectories of decoded pictures](images/studies/overlay-decoded.png)\n",
        "![Decoded pictures along the way](images/studies/overlay-strip-0.png)\n",
    ]
    return "\n".join(lines)


def _correlations(summary: Json, main: str) -> str:
    rows = [row for row in summary["rows"] if row["effect"] == main]
    names = list(dict.fromkeys(row["score"] for row in rows))
    found = {(row["score"], row["statistic"]): row for row in rows}
    ordered = sorted(names, key=lambda name: -(found[name, "spearman"]["estimate"]["value"] or 0))
    cells = [
        [
            name,
            *(
                interval(found[name, kind]["estimate"])
                for kind in ("spearman", "pearson", "interaction", "within layers")
            ),
            signed(found[name, "spearman"]["mismatched"]),
        ]
        for name in ordered
    ]
    headings = ["score", "Spearman", "Pearson", "head means removed", "within layers", "other pictures' effects"]
    return table(headings, cells)


def _notions(summary: Json, main: str) -> str:
    rows = [row for row in summary["rows"] if row["statistic"] == "spearman" and row["effect"] != main]
    effects = list(dict.fromkeys(row["effect"] for row in rows))
    names = list(dict.fromkeys(row["score"] for row in rows))
    found = {(row["score"], row["effect"]): row["estimate"]["value"] for row in rows}
    return table(
        ["score", *effects], [[name, *(signed(found.get((name, effect))) for effect in effects)] for name in names]
    )
