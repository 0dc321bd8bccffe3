"""Page of the importance study: choices, correlations, paired differences, and changes beyond the paper."""

import math
from collections.abc import Iterable

from steerlens.studies.importance.findings import CONSISTENCY
from steerlens.studies.importance.results import STATISTICS, Difference, ImportanceSetup, ImportanceSummary
from steerlens.studies.importance.scores import PLAIN_KIND
from steerlens.studies.importance.tables import baseline_tables, main_table
from steerlens.studies.importance.variants import CENTRED_VARIANT, NEUTRAL_VARIANT
from steerlens.studies.shared.candidates import (
    CHOSEN,
    ONE_FACTOR,
    ONE_FACTOR_NAME,
    ONE_FACTOR_WORDS,
    SCORE_WORDS,
    readable,
)
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.markdown import (
    attenuation_table,
    candidates_table,
    figure,
    interval,
    judged_by,
    resampled,
    signed,
    table,
)
from steerlens.studies.shared.partial import NORM
from steerlens.studies.shared.remainder import remainder_lines
from steerlens.studies.shared.stats import Estimate
from steerlens.studies.shared.wording import HEADS

_OPTIONS = f"""\
The answer depends on these options:

- *The notion of importance* (`--effect`, `--ablation`). An unsigned effect is the distance that the embedding moves. It
  may follow the size of a head's write, which needs no lens (*norm of the write* below). A signed effect is the
  similarity with a target that is lost. A total effect is measured on a real forward pass, where everything downstream
  reacts; a direct effect in the final residual alone, which is all that a lens of direct contributions can show.
- *The target* (`--target`): each label's text, another picture of the same concept, or one text for all pictures.
- *The strength* (`--strengths`). A relative strength `rho` moves all heads alike, and is the default. One factor `s`
  for all heads moves heads with large writes far from the input, so that similarity with the input may reflect little
  but the size of a write. The paper uses one factor, whose value is not known; *{ONE_FACTOR_WORDS}* is
  `{ONE_FACTOR.strength}` here, a choice of ours.
- *An outside judge* (`--judge`). The decoder inverts the same encoder that embeds its pictures again; a second encoder,
  trained separately, does not share its errors.
"""

_UNMEASURED = (
    "heads' writes split by source token, MLPs, and groups of heads as steered components (`benchmarks/components.py` "
    "measures them on overlays)",
    "texts of a vocabulary other than the target",
    "strengths other than the candidates' (the strength study sweeps them)",
)


def importance_section(summary: ImportanceSummary) -> str:
    """Writes the page of the study below its findings."""
    main, setup = summary.main, summary.setup
    seeds = f"decoder seeds {', '.join(map(str, setup.seeds))}" if setup.decoding else "nothing decoded"
    lines = [
        f"{summary.n_pictures} pictures of {summary.n_concepts} concepts, {summary.n_heads} heads, {seeds}; "
        "main effect: "
        f"{main}{_given(setup)}. Correlations are taken over the heads of a picture and averaged over pictures. "
        f"{resampled(summary.n_concepts)}\n",
        *(f"{note}\n" for note in setup.notes),
        *(
            f"{line}\n"
            for line in remainder_lines(summary.remainders, str(summary.remainder_effect), summary.n_heads, setup.sae)
        ),
        *judged_by(setup.judge),
        f"    {setup.command or 'steerlens study importance --data DATA --out studies/importance'}\n",
        *main_table(summary),
        *baseline_tables(summary),
        _OPTIONS,
        figure("Correlation of every score with the effect of ablation", "importance-correlations"),
        *_choices(summary),
        "## Correlations with the effect of ablation\n",
        f"{SCORE_WORDS}\n",
        _correlations(summary, main),
        "The last column is the null: the same scores with *other* pictures' effects. *Means removed* leaves only the "
        "part of a score that is specific to picture and head, without the heads' general size.\n",
        *([f"\\* This score {CONSISTENCY}.\n"] if _any_by_construction(summary) else []),
        *_paper(summary),
        "Paired differences, Steering Lens minus Diffusion Lens on the same embeddings:\n",
        table(
            ["scores", "effect", "Spearman", "means removed"],
            [
                [readable(row.name), str(row.effect), interval(row.estimate), _interaction(summary, row)]
                for row in summary.differences
                if row.statistic == "spearman" and row.second != NORM and row.effect in (main, summary.published)
            ],
        ),
        *_shares(summary),
        "Spearman correlations over heads with other notions of importance (\\*: as above):\n",
        _notions(summary),
        "Attribution patching uses each column's own ablation and target; an unsigned effect has none, since its "
        "gradient vanishes at the clean embedding. The exact direct effect is listed for total effects.\n",
        *_decoding(summary),
        beyond_the_paper(summary),
        figure("Heads: mean similarity against mean effect", "importance-heads"),
        *([figure("Effect and controls by layer", "importance-layers")] if summary.setup.components == HEADS else []),
    ]
    return "\n".join(lines)


def _choices(summary: ImportanceSummary) -> list[str]:
    if not summary.choices.by_name:
        return ["No setting was chosen on other pictures (`--choose`): every setting is fixed in advance.\n"]
    views = "once by scores of decoded pictures, once by scores of requested embeddings"
    return [
        "## Choices\n",
        f"Each lens' setting was chosen among equally many candidates, on {summary.setup.n_selection} pictures "
        "of other "
        f"concepts, and then frozen: {views if summary.choices.decoded else 'by scores of requested embeddings'}.\n",
        table(
            ["lens", "setting", "compared with", "correlation on the selection"],
            [
                [name, str(choice.setting), choice.compare, signed(choice.correlation)]
                for name, choice in summary.choices.by_name.items()
            ],
        ),
        "All candidates, on the selection:\n",
        candidates_table(summary.choices.by_name, "correlation"),
    ]


def _decoding(summary: ImportanceSummary) -> list[str]:
    if not summary.setup.decoding:
        return []
    return [
        "## Effect of decoding\n",
        "Reliability over decoder seeds, of one seed and of the mean over all seeds (Spearman-Brown):\n",
        table(
            ["score", "one seed", "all seeds"],
            [
                [readable(name), *("" if math.isnan(value) else f"{value:.2f}" for value in values)]
                for name, values in summary.reliability.items()
            ],
        ),
        attenuation_table(
            summary.attenuation, "the main effect", {row.score: readable(row.score) for row in summary.attenuation}
        ),
    ]


def beyond_the_paper(summary: ImportanceSummary) -> str:
    """Writes the changes beyond the paper, each with its verdict, and a list of what was not measured."""
    lines = [
        "## Beyond the paper\n",
        *(["Both sides of a difference are decoded with the same seeds.\n"] if summary.variants else []),
    ]
    on = f" on {summary.setup.model}" if summary.setup.model else ""
    for variant in summary.variants:
        sides = [
            f"{how}, {_helps(difference, own)}{on} (paired difference {interval(difference)}, "
            f"correlation {interval(own)})"
            for how, difference, own in (
                ("decoded", variant.decoded_difference, variant.decoded),
                ("not decoded", variant.undecoded_difference, variant.undecoded),
            )
        ]
        words = f"- **{variant.name}** ({variant.first}; instead of {variant.second}): {'; '.join(sides)}"
        lines.append(words + (" \\*." if variant.by_construction else "."))
    lines += _fast_ranking(summary)
    unmeasured: list[str] = [*_UNMEASURED]
    measured = {variant.name for variant in summary.variants} | {row.score for row in summary.rows}
    extras = {
        CENTRED_VARIANT: "centred writes",
        NEUTRAL_VARIANT: "a neutral base",
        ONE_FACTOR_NAME: "one factor for all heads",
    }
    if not summary.setup.decoding:
        unmeasured.append("pictures: nothing was decoded")
    elif missing := [words for name, words in extras.items() if name not in measured]:
        unmeasured.append(f"pictures with {', '.join(missing)} (`--extras`)")
    if summary.setup.judge is None and summary.setup.decoding:
        unmeasured.append("pictures as an outside judge sees them (`--judge`)")
    return "\n".join([*lines, f"- Not measured here: {'; '.join(unmeasured)}.\n"])


def _helps(difference: Estimate, own: Estimate) -> str:
    if not (difference.defined and difference.excludes_zero):
        return "it makes no clear difference"
    if not difference.above():
        return "it **hurts**"
    return "it **helps**" if own.above() else "it does better, but does not predict the effect"


def _fast_ranking(summary: ImportanceSummary) -> list[str]:
    """Verdicts on whether the undecoded score can replace the decoded ranking, given the noise of seeds."""
    lines: list[str] = []
    on = f" on {summary.setup.model}" if summary.setup.model else ""
    for row in summary.attenuation:
        if row.score not in (f"steering, {CHOSEN}", f"steering, {PLAIN_KIND}") or row.score not in summary.reliability:
            continue
        reliability = summary.reliability[row.score][1]
        most = reliability**0.5 if reliability > 0 else math.nan
        verdict = "cannot be judged as a replacement"
        if not math.isnan(most) and not math.isnan(row.agreement.low):
            verdict = "can replace it" if row.agreement.low >= 0.8 * most else "cannot replace it"
        lines.append(
            f"- **Ranking without decoding**, {readable(row.score)}: the undecoded score correlates with the decoded "
            f"ranking by {interval(row.agreement)} over heads; the seeds' noise limits a perfect score to "
            f"{signed(most) or 'an unknown value'}. It **{verdict}**{on} (bar: 0.8 of the limit). Correlation with the "
            f"effect: {interval(row.requested)} undecoded, {interval(row.decoded)} decoded."
        )
    return lines


def _shares(summary: ImportanceSummary) -> Iterable[str]:
    if not summary.ceiling_share:
        return ["The main effect is the exact direct effect itself, so no share of it is reported.\n"]
    rows = [[readable(f"steering, {name}"), interval(share)] for name, share in summary.ceiling_share.items()]
    return [
        "Share of the exact direct effect's own correlation with the total effect:\n",
        table(["score", "share"], rows),
    ]


def _given(setup: ImportanceSetup) -> str:
    return f" ({setup.given!r})" if setup.given else ""


def _any_by_construction(summary: ImportanceSummary) -> bool:
    return any(row.by_construction for row in summary.rows)


def _interaction(summary: ImportanceSummary, row: Difference) -> str:
    without_means = summary.difference(row.name, row.effect, "interaction")
    return "" if without_means is None else interval(without_means.estimate)


def _paper(summary: ImportanceSummary) -> Iterable[str]:
    """The same table for the paper's notion of importance, unless it is the main effect."""
    published = summary.published
    if published == summary.main:
        return []
    return [f"The same for the paper's notion of importance ({published}):\n", _correlations(summary, published)]


def _correlations(summary: ImportanceSummary, effect: Effect) -> str:
    rows = {(row.score, row.statistic): row for row in summary.rows if row.effect == effect}
    names = list(dict.fromkeys(score for score, _ in rows))

    def place(name: str) -> float:
        value = rows[name, "spearman"].estimate.value
        return 0.0 if math.isnan(value) else -value

    cells = [
        [
            f"{readable(name)} \\*" if rows[name, "spearman"].by_construction else readable(name),
            *(interval(row.estimate) if (row := rows.get((name, statistic))) else "" for statistic in STATISTICS),
            signed(rows[name, "spearman"].mismatched),
        ]
        for name in sorted(names, key=place)
    ]
    return table(["score", *STATISTICS.values(), "other pictures' effects"], cells)


def _notions(summary: ImportanceSummary) -> str:
    rows = [row for row in summary.rows if row.statistic == "spearman" and row.effect != summary.main]
    effects = list(dict.fromkeys(row.effect for row in rows))
    names = list(dict.fromkeys(row.score for row in rows))
    cells = {
        (row.score, row.effect): signed(row.estimate.value) + (" \\*" if row.by_construction else "") for row in rows
    }
    return table(
        ["score", *map(str, effects)],
        [[readable(name), *(cells.get((name, effect), "") for effect in effects)] for name in names],
    )
