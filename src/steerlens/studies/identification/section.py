"""Page of the identification study: its figure, and tables by lens and by layer."""

from steerlens.studies.identification.conclusion import lens_words, share
from steerlens.studies.identification.results import VIEW_WORDS, Identification, IdentificationSummary
from steerlens.studies.shared.markdown import figure, interval, judged_by, table
from steerlens.studies.shared.stats import caution
from steerlens.studies.shared.targets import INPUT


def identification_section(summary: IdentificationSummary) -> str:
    """Writes the page of the study below its findings."""
    heads = f"{summary.n_studied} of {summary.n_heads}" if summary.n_studied < summary.n_heads else f"{summary.n_heads}"
    warning = caution(summary.n_concepts)
    other = any(row.compare != INPUT for row in summary.rows)
    foils = "1 other picture" if summary.n_foils == 1 else f"{summary.n_foils} other pictures"
    lines = [
        *([figure("Single heads, each steered with three writes", "identification-pictures")] if summary.seeds else []),
        f"{summary.n_pictures} pictures of {summary.n_concepts} concepts, {heads} heads, each steered with "
        f"{summary.strength}; {_decoding(summary)}. Writes for other pictures and random "
        "directions are steered by the same relative strength as the own write. "
        f"Decoded pictures of the Steering Lens are compared with {foils} of another concept, all others with every "
        f"picture of another concept. 95 % intervals: {summary.bootstrap}."
        f"{f' **{warning.capitalize()}.**' if warning else ''}\n",
        *judged_by(summary.judge),
        f"    {summary.command or 'steerlens study identification --data DATA --out studies/identification'}\n",
        "## By lens\n",
        "*Steering Lens*: from the input's own residual. *Neutral base*: from the mean residual of other pictures, so "
        "that nothing of the input is seen but the write. *Diffusion Lens*: the write alone.\n",
        table(
            [
                "lens",
                "embeddings",
                *(["compared with"] if other else []),
                "own closer than another picture's",
                "own closer than random",
                "another picture's closer than random",
                "rank of the own",
                "own first",
            ],
            [
                [
                    lens_words(row.lens),
                    VIEW_WORDS[row.view],
                    *(["the input" if row.compare == INPUT else "another of the concept"] if other else []),
                    share(row.share),
                    *(
                        "" if against is None else share(against)
                        for against in (row.own_against_random, row.foil_against_random)
                    ),
                    f"{row.rank.value:.1f} of {row.candidates:.0f}",
                    f"{share(row.first)} (guessing: {1 / row.candidates:.0%})",
                ]
                for row in summary.rows
            ],
        ),
        "## By layer\n",
        "Share of comparisons with the input in which the own write is closer:\n",
        table(
            ["layer", *(f"{lens_words(row.lens)}, {VIEW_WORDS[row.view]}" for row in _with_input(summary))],
            [
                [str(layer), *(share(row.by_layer[place]) for row in _with_input(summary))]
                for place, layer in enumerate(summary.layers)
            ],
        ),
        *_random_by_layer(summary),
    ]
    return "\n".join(lines)


def _random_by_layer(summary: IdentificationSummary) -> list[str]:
    """The isotropic control by layer; nothing for summaries of earlier versions."""
    rows = [row for row in _with_input(summary) if row.random_by_layer]
    if not rows:
        return []
    return [
        "The isotropic control: share in which the own write is closer to the input than a random direction, steered "
        "as strongly. A neutral base has none.\n",
        table(
            ["layer", *(f"{lens_words(row.lens)}, {VIEW_WORDS[row.view]}" for row in rows)],
            [
                [str(layer), *(share(row.random_by_layer[place]) for row in rows)]
                for place, layer in enumerate(summary.layers)
            ],
        ),
    ]


def _decoding(summary: IdentificationSummary) -> str:
    if summary.fidelity is None:
        return "nothing is decoded"
    return f"decoder seeds {', '.join(map(str, summary.seeds))}, fidelity of own pictures {interval(summary.fidelity)}"


def _with_input(summary: IdentificationSummary) -> list[Identification]:
    return [row for row in summary.rows if row.compare == INPUT and row.view != "judged"]
