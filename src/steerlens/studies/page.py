"""`docs/studies.md`, made from the studies' own summaries: no number in it is typed by hand."""

from collections.abc import Callable, Mapping
from pathlib import Path

from steerlens.errors import UsageError
from steerlens.storage.files import atomic_write
from steerlens.studies.decoder.section import decoder_bar, decoder_section, strength_bar, strength_section
from steerlens.studies.importance.findings import OVERLAY_AIM, attenuation_table, candidates_table, overlay_findings
from steerlens.studies.importance.results import LAYOUT
from steerlens.studies.importance.section import found_difference, importance_findings, importance_section, own_figure
from steerlens.studies.overlay.orders import COMPARED
from steerlens.studies.overlay.section import overlay_orders
from steerlens.studies.shared.folder import read_json
from steerlens.studies.shared.markdown import Json, above, interval, percent, signed, table

STUDIES = ("importance", "overlay", "strength", "decoder")
"""The studies that the page knows, in its order."""

PAIR_FIGURES = "pair.json"
"""The bundled pair's own figures, among the studies, if they were measured."""

_GATE = ("heads that matter", "of them in the last third")

_HEAD = """\
# Does it tell the truth?

A lens is worth what interventions confirm. These are the results of `steerlens study` on {on}; this page is written by
`steerlens study page` from the summaries in [docs/studies](studies), figures included. Run the same commands on any
model and any folder of pictures.

"""

BUNDLED = "emoji"
"""The name of the bundled pair, which the page calls by that."""


def write_page(studies: Path, out: Path) -> Path:
    """Writes `studies.md`, `studies/NAME.json` and `images/studies/NAME-FIGURE.png`; returns the page's path.

    Args:
        studies: holds a folder for each study, by its name.
        out: where to write.

    Raises:
        UsageError: if none of them is finished, or one was summarised by another version.
        StoreError: if a summary cannot be read, or the page cannot be written.
    """
    found = {name: read_json(studies / name / "summary.json") for name in STUDIES}
    summaries = {name: summary for name, summary in found.items() if summary is not None}
    measured = read_json(studies / PAIR_FIGURES)
    if not summaries:
        raise UsageError(f"{studies} holds no finished study: none of {', '.join(STUDIES)} has a summary.json in it.")
    models = {name: _model_of(read_json(studies / name / "study.json")) for name in summaries}
    text = studies_page(summaries, measured, models)
    for name in summaries:
        atomic_write(out / "studies" / f"{name}.json", (studies / name / "summary.json").read_bytes())
        for figure in sorted((studies / name / "figures").glob("*.png")):
            atomic_write(out / "images" / "studies" / f"{name}-{figure.name}", figure.read_bytes())
    if measured is not None:
        atomic_write(out / "studies" / PAIR_FIGURES, (studies / PAIR_FIGURES).read_bytes())
    page = out / "studies.md"
    atomic_write(page, text.encode())
    return page


def _model_of(manifest: Json | None) -> str:
    """The name of the pair that a study was about, as a reader may see it: without the folders that it lies in."""
    name = str((manifest or {}).get("models", {}).get("pair", ""))
    return Path(name).name


def studies_page(
    summaries: Mapping[str, Json], measured: Json | None = None, models: Mapping[str, str] | None = None
) -> str:
    """The page as markdown.

    Args:
        summaries: `summary.json` of each study that ran, by the study's name.
        measured: what `steerlens train evaluate --json` says of the pair, for the gate before all studies.
        models: of each study, the name of the pair that it was about.

    Raises:
        UsageError: if a summary was made by another version, and its study has to be run again.
    """
    sections: dict[str, Callable[[Json], str]] = {
        "importance": importance_section,
        "overlay": overlay_section,
        "strength": strength_section,
        "decoder": decoder_section,
    }
    importance = summaries.get("importance")
    if importance is not None and importance.get("layout") != LAYOUT:
        raise UsageError(_OTHER_VERSION.format("importance"))
    on = _on_what({name: (models or {}).get(name, "") for name in summaries})
    parts = [_HEAD.format(on=on), verdicts(summaries, measured, on)]
    for name, summary in summaries.items():
        try:
            parts += [sections[name](summary)] if name in sections else []
        except (KeyError, TypeError) as error:
            raise UsageError(_OTHER_VERSION.format(name)) from error
    return "\n".join(parts).rstrip() + "\n"


_OTHER_VERSION = "the summary of study {} was made by another version of steerlens: run that study again."


def _on_what(models: Mapping[str, str]) -> str:
    named = {
        study: "the bundled pair" if model == BUNDLED else f"`{model}`" for study, model in models.items() if model
    }
    if len(set(named.values())) > 1:
        return "several pairs (" + ", ".join(f"{study}: {model}" for study, model in named.items()) + ")"
    return next(iter(named.values()), "the pair that was given")


def verdicts(summaries: Mapping[str, Json], measured: Json | None = None, on: str = "the pair that was given") -> str:
    """The bars and whether each is met.

    Args:
        summaries: of each study that ran.
        measured: of the bundled pair, for the gate.
        on: which model, in words.

    Raises:
        UsageError: if a summary was made by another version.
    """
    rows: list[list[str]] = []
    for figure in (measured or {"figures": ()})["figures"]:
        if figure["name"] in _GATE and figure["bar"] is not None:
            met = "met" if figure["value"] >= figure["bar"] else "MISSED"
            what = f"gate, on the bundled pair: {figure['name']} (`steerlens train evaluate`)"
            rows.append([what, f"{figure['value']:g}", f"{figure['bar']:g}", met])
    known: dict[str, Callable[[Json], list[list[str]]]] = {
        "importance": _importance_bars,
        "overlay": _overlay_bars,
        "strength": lambda summary: [strength_bar(summary)],
        "decoder": lambda summary: [decoder_bar(summary)],
    }
    told: dict[str, Callable[[Json], list[str]]] = {"importance": importance_findings, "overlay": overlay_findings}
    findings: list[str] = []
    for name, summary in summaries.items():
        try:
            rows += known[name](summary) if name in known else []
            findings += told[name](summary) if name in told else []
        except (KeyError, TypeError) as error:
            raise UsageError(_OTHER_VERSION.format(name)) from error
    bars = "## The bars\n\n" + table(["what", f"on {on}", "bar", ""], rows)
    return bars + (f"\nOn {on}:\n\n" + "\n".join(f"- {finding}" for finding in findings) + "\n" if findings else "")


def _importance_bars(summary: Json) -> list[list[str]]:
    main = summary["main"]
    difference = (found_difference(summary, "chosen") or {})["estimate"]
    own, beats = own_figure(summary, "steering, chosen"), summary["beats_control"]
    rows = [
        [
            f"importance: DSL minus Diffusion Lens, correlation with the main effect ({main}), decoded",
            interval(difference),
            "interval above 0",
            _met(above(difference)),
        ],
        [
            f"importance: DSL's own correlation with it ({main}), decoded",
            interval(own),
            "interval above 0",
            _met(above(own)),
        ],
    ]
    if (share := summary["ceiling_share"].get("chosen")) is not None:
        rows.append(
            [
                "importance: DSL as a share of the exact direct effect's correlation (the ceiling), decoded",
                interval(share),
                "aim: 0.8",
                _aimed((share["value"] or 0) >= 0.8),
            ]
        )
    layers = " ".join(f"{value:.0%}" for value in summary["beats_by_layer"])
    share = f"{percent(beats)} [{beats['low'] or 0:.0%}, {beats['high'] or 0:.0%}]"
    rows.append(
        [
            "heads closer to the input than a random direction steered as hard (one a head, for all pictures); by "
            "layer",
            f"{share}; {layers}",
            "reported; chance is 50%",
            "above chance" if above(beats, 0.5) else "not above chance",
        ]
    )
    return rows


def _overlay_bars(summary: Json) -> list[list[str]]:
    area = summary["bar"]
    what = "overlay: DSL's normalised area (0 random order, 1 greedy reference)"
    return [
        [what, interval(area), "interval above 0", _met(above(area))],
        [what, interval(area), f"aim: {OVERLAY_AIM:g}", _aimed((area["value"] or 0) >= OVERLAY_AIM)],
    ]


def _met(met: bool) -> str:
    return "met" if met else "MISSED"


def _aimed(met: bool) -> str:
    return "aim met" if met else "aim MISSED"


def overlay_section(summary: Json) -> str:
    """Overlay removal: choices, orders, paired differences."""
    low, high = summary["random_range"]
    lines = [
        "## Overlay removal\n",
        "Does ablating heads in a lens' order make an overlay leave, while the base stays? The paper's second study.",
        f"{summary['n_pairs']} pairs of a base and an overlay, {summary['n_heads']} heads, {summary['ablation']} "
        "ablation. The number of an order is the area of the objective's drop over the first quarter of the heads: 0 "
        "for random orders, 1 for the greedy reference, which is not the optimum. Intervals draw pairs anew, "
        "one by one (95 %): pairs that share a picture count as independent.\n",
        f"    {summary.get('command') or 'steerlens study overlay --data DATA --out studies/overlay'}\n",
        "![Normalised area of every order](images/studies/overlay-orders.png)\n",
        table(
            ["lens", "setting", "compared with", "area where it was chosen"],
            [
                [
                    lens,
                    choice["setting"],
                    COMPARED[choice["compare"]],
                    signed(choice["area"]),
                ]
                for lens, choice in summary["choices"].items()
            ],
        ),
        "All candidates, where the choice was made:\n",
        candidates_table(summary["choices"], "normalised area"),
        overlay_orders(summary),
        f"Single random orders lie between {low:+.2f} and {high:+.2f}. Steering Lens minus Diffusion Lens, chosen: "
        f"{interval(summary['difference'])}.\n",
        table(["paired difference", "area"], [[name, interval(one)] for name, one in summary["differences"].items()]),
        attenuation_table(summary["attenuation"], "each head's own effect on the objective"),
        "![Trajectories of the embedding](images/studies/overlay-trajectories.png)\n",
        "![Trajectories of decoded pictures](images/studies/overlay-decoded.png)\n",
        "![Decoded pictures along the way](images/studies/overlay-strip-0.png)\n",
    ]
    return "\n".join(lines)
