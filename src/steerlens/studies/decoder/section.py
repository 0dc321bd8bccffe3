"""The sections of the page of results that are about decoding: how hard to steer, and what the decoder adds."""

from steerlens.studies.shared.caution import caution
from steerlens.studies.shared.markdown import Json, above, at_least, excludes, interval, percent, signed, table
from steerlens.studies.shared.notions import INPUT
from steerlens.studies.strength.tables import ASKED, ASKED_SAME, DECODED, JUDGED


def strength_section(summary: Json) -> str:
    """Strength: the sweep, the rule and what it recommends."""
    rule, target = summary["recommendation"], summary["target"]
    clean = {kind: one["beyond"] for kind, one in summary["clean_typicality"].items()}
    lines = [
        "## Strength\n",
        "How hard to steer, for pictures that say what a head does and that still are of this world?",
        f"{summary['n_pictures']} pictures of {summary['n_concepts']} concepts (chosen on {summary['n_chosen']} of "
        f"others), {summary['n_decoded']} of {summary['n_heads']} heads decoded; effect: {summary['main']}. Fidelity "
        "is the cosine of the decoded picture with what was asked for; typicality the share of steered embeddings that "
        f"lie farther from {summary['n_references']} real ones, held apart, than 95 % of these do from each other. "
        f"{drawn(min(summary['n_concepts'], summary['n_chosen_concepts']))}\n",
        *judged_by(summary),
        f"    {summary['command'] or 'steerlens study strength --data DATA --out studies/strength'}\n",
        "![Correlation, fidelity, similarity and typicality over the sweep](images/studies/strength-sweep.png)\n",
        _strengths(summary),
        f"Unsteered pictures: fidelity {interval(summary['clean_fidelity'])}, beyond 95 % of real ones "
        f"{percent(clean['nearest'])} (nearest neighbour) and {percent(clean['mahalanobis'])} (Mahalanobis).\n",
        f"The rule: {rule['rule']}.\n",
        f"It gives **{rule['strength'] or 'none'}**. {choice_words(rule)}\n",
        f"Paired differences are of the recommended strength's correlation with the {target} minus each other's, on "
        "the concepts reported on:\n",
        "![The rule at work](images/studies/strength-choice.png)\n",
        table(
            ["strength", "correlation where chosen", "fidelity, share", "atypical", "within bounds", "difference"],
            [
                [
                    name,
                    signed(one["correlation"]),
                    signed(one["fidelity"]),
                    f"{one['atypical']:.0%}",
                    "yes" if one["within"] else "no",
                    "" if name not in (rule["differences"] or {}) else interval(rule["differences"][name]),
                ]
                for name, one in rule["candidates"].items()
            ],
        ),
        "![Single heads, steered harder and harder](images/studies/strength-pictures.png)\n",
    ]
    return "\n".join(lines)


def choice_words(rule: Json) -> str:
    """What decided for the recommended strength, and whether its own correlation can be told from none."""
    if rule["strength"] is None:
        return "No strength of the sweep keeps to the bounds."
    bounds, ties = rule["bounds"], ", ".join(rule["runners_up"])
    within = [name for name, one in rule["candidates"].items() if one["within"]]
    others = [one for name, one in (rule["differences"] or {}).items() if name in within]
    apart = f"{sum(map(above, others))} of {len(others)}"
    undecided = f"it cannot tell the strengths within the bounds apart ({', '.join(within)})"
    if len(within) == 1:
        undecided = f"only {within[0]} keeps to the bounds"
    decided = {
        "correlation": f"The correlation decided: where it was chosen, {rule['best']} does better than every other one "
        f"within the bounds; on other concepts that holds against {apart}.",
        "convention": f"The correlation left {rule['best']}, the best where it was chosen, and {ties}, which cannot be "
        "told from it; among these the convention decided: the one that moves embeddings farthest.",
        "bounds": f"**The correlation did not decide**: {undecided}. What decided are the bounds, a fidelity of at "
        f"least {bounds['fidelity']:g} of the clean pictures' and a share of at most {bounds['atypical']:g} atypical "
        "embeddings, which are set and not measured, and the convention to take the one that moves embeddings "
        "farthest.",
    }
    own = rule["correlation"]
    words = f"{decided[rule['decided']]} On other concepts its correlation is {interval(own)}"
    if not excludes(own):
        return f"{words}, **which includes 0**: no correlation is shown for it."
    if not above(own):
        return f"{words}, **which lies below 0**: its pictures rank heads the wrong way round."
    return f"{words}."


def _strengths(summary: Json) -> str:
    target, all_heads = summary["target"], summary["n_heads"]
    few = summary["n_decoded"] < all_heads
    # Scores are compared over the same heads; what is known of all heads stands apart, and says so.
    asked, some = (ASKED_SAME, f"the same {summary['n_decoded']} heads") if few else (ASKED, f"{all_heads} heads")
    heads = {DECODED: f"{summary['n_decoded']} heads", asked: some, JUDGED: f"{summary['n_decoded']} heads"}
    if few:
        heads[ASKED] = f"all {all_heads} heads"
    names = {ASKED_SAME: ASKED}
    found = {
        (row["strength"], row["score"], row["compare"], row["effect"] == summary["main"], row["statistic"]): interval(
            row["estimate"]
        )
        for row in summary["correlations"]
    }
    columns: list[tuple[str, str, str, bool, str]] = [
        (
            f"{names.get(score, score)} ({heads[score]}), {compare}: {'signed' if main else 'unsigned'}{words}",
            score,
            compare,
            main,
            statistic,
        )
        for score, compare, main, statistic, words in (
            (DECODED, target, True, "spearman", ""),
            (asked, target, True, "spearman", ""),
            (DECODED, target, True, "interaction", ", head means removed"),
            (asked, target, True, "interaction", ", head means removed"),
            (JUDGED, target, True, "spearman", ""),
            (DECODED, INPUT, True, "spearman", ""),
            (JUDGED, INPUT, True, "spearman", ""),
            (DECODED, INPUT, False, "spearman", ""),
            (asked, INPUT, False, "spearman", ""),
            (JUDGED, INPUT, False, "spearman", ""),
            *([(ASKED, target, True, "spearman", "")] if few else []),
        )
        if any(key[1:] == (score, compare, main, statistic) for key in found)
    ]
    correlations = table(
        ["strength", *(column[0] for column in columns)],
        [
            [point["strength"], *(found[point["strength"], *column[1:]] for column in columns)]
            for point in summary["points"]
        ],
    )
    pictures = table(
        ["strength", "rho, median", "fidelity", f"similarity with {target}", "beyond 95 %: nearest", "Mahalanobis"],
        [
            [
                point["strength"],
                f"{point['rho']:.2f}",
                interval(point["fidelity"]),
                interval(point["similarity"]["decoded"][target]),
                percent(point["typicality"]["nearest"]["beyond"]),
                percent(point["typicality"]["mahalanobis"]["beyond"]),
            ]
            for point in summary["points"]
        ],
    )
    return (
        "Spearman correlation over heads of the similarity (of decoded pictures or not) with the target or the input, "
        f"and the total effect of ablation:\n\n{correlations}\n{pictures}"
    )


def decoder_section(summary: Json) -> str:
    """Decoder: agreement over seeds, rankings against the reference, the fewest steps that are enough."""
    reference, default = summary["reference"], summary["rows"][0]
    single, whole = summary["seed_to_seed"]
    seen = [("", "seen")] + ([(", judged", "judged")] if reference["judged"] is not None else [])
    headings = ["setting", "passes"]
    headings += [f"{what}{who}" for who, _ in seen for what in ("rank correlation", "of the ceiling", "agreement")]
    lines = [
        "## Decoder\n",
        "What does the decoder add to what it is asked for, and how many steps are worth their time?",
        f"{summary['n_pictures']} pictures of {summary['n_concepts']} concepts, {summary['n_decoded']} of "
        f"{summary['n_heads']} heads, steered with {summary['strength']} and decoded with {len(summary['seeds'])} "
        f"seeds at every setting. Heads are ranked by similarity with the {summary['target']}, one seed at a time, and "
        f"held against the reference ({reference['name']}, {len(summary['reference_seeds'])} other seeds, mean of all "
        "but one). The ceiling is the reference's own: one seed against its others. "
        f"{drawn(summary['n_concepts'])}\n",
        *judged_by(summary),
        f"    {summary['command'] or 'steerlens study decoder --data DATA --out studies/decoder'}\n",
        "![Rank correlation, agreement and fidelity against steps](images/studies/decoder-steps.png)\n",
        table(
            [*headings, "fidelity"],
            [
                [
                    f"{row['name']}{' (default)' if row is default else ' (reference)' if row is reference else ''}",
                    str(row["passes"]),
                    *(
                        interval(row[key][kind])
                        for _, key in seen
                        for kind in ("rank_correlation", "share", "agreement")
                    ),
                    interval(row["fidelity"]),
                ]
                for row in (*summary["rows"], reference)
            ],
        ),
        f"Two seeds of the reference rank heads with a correlation of {signed(single) or 'undefined'}; the mean of all "
        f"has a reliability of {signed(whole) or 'undefined'} (Spearman-Brown). The ranking without decoding, which "
        f"has no noise of a seed, against the mean of all: {interval(summary['asked'])}. The most that one "
        f"without noise could reach is the root of the reliability, {interval(summary['asked_ceiling'])}; its share is "
        f"{interval(summary['asked_share'])}.\n",
        f"{steps_words(summary)}\n",
        f"What the decoder invents at the default setting is at least 1 - agreement over seeds: "
        f"{interval(summary['invented'])}; what all seeds invent alike does not show there. Pictures of different "
        f"inputs agree by {signed(default['seen']['unrelated']) or 'undefined'}.\n",
        "![Every setting of the sweep](images/studies/decoder-settings.png)\n",
        "![The same embeddings with other seeds](images/studies/decoder-seeds.png)\n",
    ]
    return "\n".join(lines)


def steps_words(summary: Json) -> str:
    """The rule for the number of steps, what it gives as a point estimate and with its uncertainty, and what to do."""
    wanted, default = summary["wanted"], summary["rows"][0]
    rows = {row["steps"]: row for row in summary["rows"] if row["axis"] in ("default", "steps")}
    fewest, certain = _fewest(summary)
    rule = (
        f"The rule: so many steps are enough, all else as by default, if they reach {wanted:g} of the ceiling. Fewest "
        f"as a point estimate: **{'none' if fewest is None else fewest}**"
        f"{'' if fewest is None else ', share ' + interval(rows[fewest]['seen']['share'])}. Fewest whose interval's "
        f"lower end reaches {wanted:g} as well: **{'none' if certain is None else certain}**. "
    )
    own = f"the default is {default['steps']} steps with a share of {interval(default['seen']['share'])}"
    if fewest is None:
        most = rows[max(rows)]
        more = interval(most["seen"]["share"])
        words = f"{rule}No number of steps of the sweep reaches it; {own}. The most, {most['steps']}, have {more}"
        if at_least(default["seen"]["share"], most["seen"]["share"]):
            return f"{words}: more steps than by default do not help, and what is missing is not theirs."
        return f"{words}."
    if certain is not None:
        return f"{rule}So {certain} steps are enough, by an interval that stands for itself alone; {own}."
    more = max(fewest, default["steps"])
    return (
        f"{rule}So nothing is certain: a share below {wanted:g} is left open for every number of steps, the largest "
        f"included. {fewest} steps look enough, but these pictures are too few to tell; {own}. Recommended: no fewer "
        f"than {more} steps until more pictures (`--count`) narrow the intervals."
    )


def drawn(count: int, what: str = "concepts") -> str:
    """What the intervals of a section draw anew, with a warning where there are few of them."""
    warned = caution(count, what)
    return "Intervals draw concepts and heads anew (95 %)." + (f" **{warned.capitalize()}.**" if warned else "")


def judged_by(summary: Json) -> list[str]:
    """Who the outside judge was, if there was one."""
    judge = summary["judge"]
    if judge is None:
        return []
    return [f"*Judged*: by an outside encoder, {judge['name']} (weights {judge['sha256'][:12]}).\n"]


def strength_bar(summary: Json) -> list[str]:
    """The row of the strength study among the bars: what, the figure, the bar, whether it is met."""
    rule, default = summary["recommendation"], summary["default"]
    strength = rule["strength"]
    words = f"{strength or 'none within the bounds'}; the default is {default}"
    if strength is None:
        return ["strength: what the rule recommends", words, "reported", ""]
    verdict = "kept" if strength == default else "DIFFERS"
    decided = "" if rule["decided"] == "correlation" else f", by {_DECIDED[rule['decided']]}"
    return ["strength: what the rule recommends", words, "reported", f"{verdict}{decided}"]


_DECIDED = {"bounds": "bounds and convention: the correlation did not decide", "convention": "a convention among ties"}


def decoder_bar(summary: Json) -> list[str]:
    """The row of the decoder study among the bars, as above."""
    fewest, certain = ("none" if steps is None else steps for steps in _fewest(summary))
    default = summary["rows"][0]
    words = f"{fewest} as a point estimate, {certain} by the interval's lower end; the default is {default['steps']}"
    if default["name"] in summary["certain"]:
        verdict = "enough"
    else:
        verdict = "enough as a point estimate" if default["name"] in summary["reaching"] else _short(summary)
    what = f"decoder: fewest steps that rank heads with {summary['wanted']:g} of the reference's agreement with itself"
    return [what, words, "reported", verdict]


def _short(summary: Json) -> str:
    """Whether the default's steps are too few, or their interval leaves that open."""
    high = summary["rows"][0]["seen"]["share"]["high"]
    return "undecided" if high is None or high >= summary["wanted"] else "TOO FEW"


def _fewest(summary: Json) -> tuple[int | None, int | None]:
    return summary["cheapest_steps"], summary["certain_steps"]
