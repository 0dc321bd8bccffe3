"""The section of the page of results that is about head importance, and what the study comes to in words."""

from collections.abc import Iterable

from steerlens.studies.decoder.section import drawn, judged_by
from steerlens.studies.importance.findings import attenuation_table, candidates_table, claim, lost
from steerlens.studies.shared.candidates import PUBLISHED
from steerlens.studies.shared.markdown import Json, above, excludes, interval, signed, table
from steerlens.studies.shared.scores import PUBLISHED_NAME

_STATISTICS = {
    "spearman": "Spearman",
    "pearson": "Pearson",
    "interaction": "Spearman, means removed",
    "interaction pearson": "Pearson, means removed",
    "within layers": "within layers",
}

_CONSISTENCY = (
    "compared, before decoding, with the effect's own target. For direct effects that holds nearly by construction, "
    "and total effects contain the direct ones: a check of consistency, and no evidence about pictures"
)

_OPTIONS = """\
What the answer depends on, and which option decides it:

- *The notion of importance* (`--effect`, `--ablation`). Unsigned: how far the embedding moves, wherever to. That can
  follow the size of a head's write, which needs no lens (*norm of the write* below). Signed: how much similarity with a
  target is lost. Total: on a real forward pass, everything downstream reacting. Direct: in the final residual alone,
  all that a lens of direct contributions can know.
- *The target* (`--target`): each label's text, another picture of the same concept, or one text for all pictures.
- *The strength* (`--strengths`). One factor `s` for all heads moves heads with large writes far away from the input, so
  that similarity with the input may say little but how large a write is; a relative strength `rho` moves all alike.
- *An outside judge* (`--judge`): the decoder inverts the very encoder that embeds its pictures again; a second encoder,
  trained apart, does not share its errors.
"""

_UNMEASURED = (
    "heads' writes split by the image tokens they read from, MLPs and groups of heads as steered components (on "
    "overlays, `benchmarks/components.py` does)",
    "a vocabulary's texts other than the target as concepts to look for",
    "strengths other than those of the candidates (the strength study sweeps them)",
)


def found_difference(summary: Json, name: str, statistic: str = "spearman", effect: str = "") -> Json | None:
    """A paired difference by its name, of the main effect unless another is named; None if it was not measured."""
    wanted = (name, statistic, effect or summary["main"])
    rows = summary["differences"]
    return next((row for row in rows if (row["name"], row["statistic"], row["effect"]) == wanted), None)


def own_figure(summary: Json, score: str, effect: str = "") -> Json:
    """The Spearman correlation of a score with an effect."""
    wanted = (score, effect or summary["main"], "spearman")
    row = next(row for row in summary["rows"] if (row["score"], row["effect"], row["statistic"]) == wanted)
    return row["estimate"]


def importance_findings(summary: Json) -> list[str]:
    """What the importance study comes to."""
    published, main = summary["published"], summary["main"]
    in_words = (
        f"one factor for all heads, {PUBLISHED.strength}, pictures compared with the input, against how far real "
        f"ablation moves the embedding ({published})"
    )
    paper = f"The paper's claim that the Steering Lens tells importance and the Diffusion Lens hardly does: {in_words}"
    before = "The same before decoding"
    if found_difference(summary, PUBLISHED_NAME, effect=published) is None:
        before = f"{paper}; before decoding (its pictures were not made: `--extras`)"
    claims = [
        (paper, PUBLISHED_NAME, published),
        (before, f"{PUBLISHED_NAME}, not decoded", published),
        ("The same as the outside judge sees the pictures", f"{PUBLISHED_NAME}, judged with input", published),
        (f"Settings chosen for each lens, decoded, against the main effect ({main})", "chosen", main),
        *(
            (f"The same pictures, compared with {words} by the {judge}", f"chosen, {how} {what}", main)
            for what, words in (("input", "the input"), ("other", "another picture of the concept"))
            for judge, how in (("encoder itself", "compared with"), ("outside judge", "judged with"))
        ),
        ("Settings chosen for each lens by its undecoded scores", "chosen, not decoded", main),
    ]
    lines = [line for one in claims for line in _claim(summary, *one)]
    shares = summary["ceiling_share"]
    if shares:
        lines[-1] += f" The Steering Lens reaches {interval(shares['chosen, not decoded'])} of the ceiling there."
    if any(_row(summary, f"{lens}, chosen, not decoded")["by_construction"] for lens in ("steering", "diffusion")):
        lines[-1] += f" This score is {_CONSISTENCY}."
    found = {row["score"]: row for row in summary["attenuation"]}
    towards = f"towards {summary['choices']['steering']['compare']}" in main
    remark = ", a check of consistency: it is compared with the effect's own target" if towards else ""
    lines += _like_with_like(summary) + lost(found["steering, chosen"], "the main effect", remark)
    return lines + [_best(summary, effect) for effect in dict.fromkeys((main, published))]


def _best(summary: Json, effect: str) -> str:
    """Which score predicts an effect best, and which of decoded pictures; checks of consistency do not count."""
    rows = [
        row
        for row in summary["rows"]
        if row["effect"] == effect and row["statistic"] == "spearman" and not row["by_construction"]
    ]
    sides = (rows, [row for row in rows if row["score"] in summary["reliability"]])
    first, pictures = (max(side, key=lambda row: row["estimate"]["value"] or -1.0) for side in sides)
    return (
        f"The best score for an effect that is {effect}, of those tried and as a point estimate: {first['score']} "
        f"({interval(first['estimate'])}); of decoded pictures: {pictures['score']} ({interval(pictures['estimate'])})."
    )


def _claim(summary: Json, what: str, name: str, effect: str) -> list[str]:
    difference = found_difference(summary, name, effect=effect)
    if difference is None:
        return []
    own, other = (own_figure(summary, difference[side], effect) for side in ("first", "second"))
    return [claim(what, difference["estimate"], own, other, alone=name.startswith(PUBLISHED_NAME))]


def _like_with_like(summary: Json) -> list[str]:
    """The undecoded comparison of the same kind of write on both sides: taking means out is no part of a lens."""
    target = summary["main"].split(", ")[1].removeprefix("signed ")
    pairs = {
        row["name"]: row["estimate"]
        for row in summary["differences"]
        if row["statistic"] == "spearman"
        and row["effect"] == summary["main"]
        and row["name"] in [f"{kind}, {target}, not decoded" for kind in ("plain", "centred")]
    }
    if not pairs:
        return []
    words = "; ".join(f"both {name}: {interval(estimate)}" for name, estimate in pairs.items())
    better = sum(above(estimate) for estimate in pairs.values())
    since = ""
    if summary["main"].endswith(", mean"):
        since = ", since a lens that steers with centred writes is given what mean ablation takes away"
    return [
        f"Like with like{since}: Steering Lens minus Diffusion Lens, {words}. The Steering Lens does better in "
        f"{better} of {len(pairs)}. These, too, are checks of consistency."
    ]


def importance_section(summary: Json) -> str:
    """Head importance: choices, correlations, paired differences, reliability, what goes beyond the paper."""
    main, setup = summary["main"], summary["setup"]
    chosen = f"{setup['n_chosen']} pictures of other concepts"
    seeds = ", ".join(map(str, setup["seeds"]))
    lines = [
        "## Head importance\n",
        "Does a head's picture say what ablating that head does to the embedding? The paper's first study.",
        f"{summary['n_pictures']} pictures of {summary['n_concepts']} concepts, {summary['n_heads']} heads, decoder "
        f"seeds {seeds}; main effect: {main}{_given(setup)}. Correlations run over the heads of one picture and are "
        f"averaged over pictures. {drawn(summary['n_concepts'])}\n",
        *(f"{note}\n" for note in setup["notes"]),
        *judged_by(setup),
        f"    {setup['command'] or 'steerlens study importance --data DATA --out studies/importance'}\n",
        _OPTIONS,
        "![Correlation of every score with the effect of ablation](images/studies/importance-correlations.png)\n",
        f"Settings were chosen for each lens among as many candidates, on {chosen}, and frozen; by the scores of "
        "decoded pictures, and once more by those of the embeddings asked for:\n",
        table(
            ["lens", "setting", "compared with", "correlation where it was chosen"],
            [
                [lens, choice["setting"], choice["compare"], signed(choice["correlation"])]
                for lens, choice in summary["choices"].items()
            ],
        ),
        "All candidates, where the choice was made:\n",
        candidates_table(summary["choices"], "correlation"),
        _correlations(summary, main),
        "The last column is the null: the same scores with *other* pictures' effects. *Means removed* leaves only what "
        "a score says about this picture's head, beyond which heads are large in general.\n",
        *([f"\\* {_CONSISTENCY[0].upper()}{_CONSISTENCY[1:]}.\n"] if _any_by_construction(summary) else []),
        *_paper(summary),
        "Paired differences, Steering Lens minus Diffusion Lens, both seen in the same way:\n",
        table(
            ["scores", "effect", "Spearman", "means removed"],
            [
                [row["name"], row["effect"], interval(row["estimate"]), _interaction(summary, row)]
                for row in summary["differences"]
                if row["statistic"] == "spearman"
            ],
        ),
        *_shares(summary),
        "Other notions of importance, Spearman over heads (\\*: as above):\n",
        _notions(summary),
        "Attribution patching is of each column's own ablation and target; an unsigned effect has none, since its "
        "gradient is zero where nothing is ablated. The exact direct effect stands beside total effects.\n",
        "Reliability over decoder seeds (one seed; mean of all seeds, Spearman-Brown):\n",
        table(
            ["score", "one seed", "all seeds"],
            [
                [name, *("" if value is None else f"{value:.2f}" for value in values)]
                for name, values in summary["reliability"].items()
            ],
        ),
        attenuation_table(summary["attenuation"], "the main effect"),
        beyond(summary),
        "![Heads: mean similarity against mean effect](images/studies/importance-heads.png)\n",
        "![Effect and controls by layer](images/studies/importance-layers.png)\n",
    ]
    return "\n".join(lines)


def beyond(summary: Json) -> str:
    """What goes beyond the paper, each with its verdict, and what was not measured."""
    lines = [
        "### Beyond the paper\n",
        "Both sides of a difference are decoded with the same seeds, those that both have.\n",
    ]
    for one in summary["variants"]:
        sides = [
            f"{how} {_helps(one[f'{side}_difference'], one[side])}, paired difference "
            f"{interval(one[f'{side}_difference'])}, itself {interval(one[side])}"
            for how, side in (("decoded", "decoded"), ("not decoded", "asked"))
        ]
        words = f"- **{one['name']}** ({one['first']}, against {one['second']}): {'; '.join(sides)}"
        lines.append(words + (" \\*." if one["by_construction"] else "."))
    lines += _fast_ranking(summary)
    unmeasured: list[str] = [*_UNMEASURED]
    made = {one["name"] for one in summary["variants"]} | {row["score"] for row in summary["rows"]}
    extras = {"centred": "centred writes", "neutral base": "a neutral base", PUBLISHED_NAME: "the paper's factor"}
    if missing := [words for name, words in extras.items() if name not in made]:
        unmeasured.append(f"pictures with {', '.join(missing)} (`--extras`)")
    if summary["setup"]["judge"] is None:
        unmeasured.append("pictures as an outside judge sees them (`--judge`)")
    return "\n".join([*lines, f"- Not measured here: {'; '.join(unmeasured)}.\n"])


def _helps(difference: Json, own: Json) -> str:
    if not excludes(difference):
        return "no difference is told"
    if not above(difference):
        return "it **hurts**"
    return "it **helps**" if above(own) else "it does better, but tells nothing by itself"


def _fast_ranking(summary: Json) -> list[str]:
    """Ranking without decoding: whether the undecoded score gives the decoded ranking, as far as seeds let it."""
    lines: list[str] = []
    for row in summary["attenuation"]:
        if row["score"] not in ("steering, chosen", "steering, plain"):
            continue
        whole = summary["reliability"][row["score"]][1]
        agreement, most = row["passed_on"], None if whole is None or whole <= 0 else whole**0.5
        verdict = "cannot be told to stand in"
        if most is not None and agreement["low"] is not None:
            verdict = "stands in" if agreement["low"] >= 0.8 * most else "does not stand in"
        lines.append(
            f"- **Ranking without decoding**, {row['score']}: the undecoded score agrees with the decoded ranking by "
            f"{interval(agreement)} over heads, where the seeds' noise would let a perfect one reach "
            f"{signed(most) or 'an unknown share'}: it **{verdict}** for it "
            f"(asked for: 0.8 of that). With the effect itself: {interval(row['asked'])} undecoded, "
            f"{interval(row['made'])} decoded."
        )
    return lines


def _shares(summary: Json) -> Iterable[str]:
    if not summary["ceiling_share"]:
        return ["The main effect is the exact direct one, so that there is no ceiling to be a share of.\n"]
    rows = [[name, interval(value)] for name, value in summary["ceiling_share"].items()]
    return [
        "Share of the ceiling (the exact direct effect's own correlation with the total effect):\n",
        table(["Steering Lens", "share"], rows),
    ]


def _given(setup: Json) -> str:
    return f" ({setup['given']!r})" if setup["given"] else ""


def _row(summary: Json, score: str) -> Json:
    return next(row for row in summary["rows"] if row["score"] == score and row["effect"] == summary["main"])


def _any_by_construction(summary: Json) -> bool:
    return any(row["by_construction"] for row in summary["rows"])


def _interaction(summary: Json, row: Json) -> str:
    found = found_difference(summary, row["name"], "interaction", row["effect"])
    return "" if found is None else interval(found["estimate"])


def _paper(summary: Json) -> Iterable[str]:
    """The same table for the paper's notion of importance, unless that is the main one."""
    published = summary["published"]
    if published == summary["main"]:
        return []
    return [f"The same for the paper's notion of importance ({published}):\n", _correlations(summary, published)]


def _correlations(summary: Json, effect: str) -> str:
    rows = [row for row in summary["rows"] if row["effect"] == effect]
    names = list(dict.fromkeys(row["score"] for row in rows))
    found = {(row["score"], row["statistic"]): row for row in rows}
    ordered = sorted(names, key=lambda name: -(found[name, "spearman"]["estimate"]["value"] or 0))
    cells = [
        [
            f"{name} \\*" if found[name, "spearman"]["by_construction"] else name,
            *(interval(found[name, kind]["estimate"]) for kind in _STATISTICS),
            signed(found[name, "spearman"]["mismatched"]),
        ]
        for name in ordered
    ]
    return table(["score", *_STATISTICS.values(), "other pictures' effects"], cells)


def _notions(summary: Json) -> str:
    rows = [row for row in summary["rows"] if row["statistic"] == "spearman" and row["effect"] != summary["main"]]
    effects = list(dict.fromkeys(row["effect"] for row in rows))
    names = list(dict.fromkeys(row["score"] for row in rows))
    found = {
        (row["score"], row["effect"]): signed(row["estimate"]["value"]) + (" \\*" if row["by_construction"] else "")
        for row in rows
    }
    return table(
        ["score", *effects], [[name, *(found.get((name, effect), "") for effect in effects)] for name in names]
    )
