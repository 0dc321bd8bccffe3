"""Page of the strength study: the sweep, the rule and its recommendation."""

from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.markdown import figure, interval, judged_by, percent, resampled, signed, table
from steerlens.studies.shared.partial import GIVEN, RAW
from steerlens.studies.shared.stats import Estimate
from steerlens.studies.shared.targets import INPUT
from steerlens.studies.strength.findings import choice_words
from steerlens.studies.strength.results import StrengthSummary
from steerlens.studies.strength.scores import DECODED, JUDGED, MAHALANOBIS, NEAREST, UNDECODED, UNDECODED_SAME
from steerlens.studies.strength.summary import rule_words


def strength_section(summary: StrengthSummary) -> str:
    """Writes the page of the study below its findings."""
    rule, target = summary.recommendation, summary.target
    clean = {kind: typicality.beyond for kind, typicality in summary.clean_typicality.items()}
    differences = rule.differences or {}
    lines = [
        f"{summary.n_pictures} pictures of {summary.n_concepts} concepts (selection: {summary.n_selection} pictures of "
        f"other concepts), {summary.n_decoded} of {summary.n_heads} heads decoded; effect: {summary.main}. *Fidelity* "
        "is the cosine of the decoded picture's embedding with the requested embedding. A steered embedding is "
        f"*atypical* if it is farther from {summary.n_references} unstudied real embeddings than 95 % of these are "
        "from each other. "
        f"{resampled(min(summary.n_concepts, summary.n_selection_concepts))}\n",
        *judged_by(summary.judge),
        f"    {summary.command or 'steerlens study strength --data DATA --out studies/strength'}\n",
        figure("Correlation, fidelity, similarity and typicality over the sweep", "strength-sweep"),
        "## The sweep\n",
        "Spearman correlations over heads between the total effect of ablation and the similarity of decoded pictures, "
        "or of requested embeddings, with the target or the input:\n",
        _correlations(summary),
        *_baselines(summary),
        _pictures(summary),
        f"Without steering: fidelity {interval(summary.clean_fidelity)}, share of atypical embeddings "
        f"{percent(clean[NEAREST])} (nearest neighbour) and {percent(clean[MAHALANOBIS])} (Mahalanobis).\n",
        "## The rule\n",
        f"{rule_words(rule.bounds, summary.main)}.\n",
        f"The rule recommends **{rule.strength or 'no strength'}**. {choice_words(rule)}\n",
        f"The last column holds paired differences: the correlation of the recommended strength (similarity with the "
        f"{target}) minus that of each other strength, on the concepts to report on.\n",
        figure("The rule applied", "strength-choice"),
        table(
            ["strength", "correlation on the selection", "fidelity, share", "atypical", "within bounds", "difference"],
            [
                [
                    name,
                    signed(candidate.correlation),
                    signed(candidate.fidelity),
                    f"{candidate.atypical:.0%}",
                    "yes" if candidate.within else "no",
                    interval(differences[name]) if name in differences else "",
                ]
                for name, candidate in rule.candidates.items()
            ],
        ),
        figure("Single heads at increasing strength", "strength-pictures"),
    ]
    return "\n".join(lines)


def _baselines(summary: StrengthSummary) -> list[str]:
    """Tables of norm and layer beside every strength, with partial correlations."""
    lines: list[str] = []
    for effect in dict.fromkeys(row.effect for row in summary.baselines):
        rows = [row for row in summary.baselines if row.effect == effect]
        cells = [
            [row.score, *("" if (own := row.estimates.get(kind)) is None else interval(own) for kind in (RAW, *GIVEN))]
            for row in rows
        ]
        lines += [
            f"Beside baselines without a lens, over the {summary.n_decoded} decoded heads, for the effect {effect}:\n",
            table(["score", "raw", *(f"given {name}" for name in GIVEN)], cells),
        ]
    return lines


def _correlations(summary: StrengthSummary) -> str:
    """Table of the correlations of every measured score with the effects."""
    target, n_heads = summary.target, summary.n_heads
    few = summary.n_decoded < n_heads
    # Scores are compared over the same heads; the score of all heads has its own column.
    undecoded, some = (
        (UNDECODED_SAME, f"the same {summary.n_decoded} heads") if few else (UNDECODED, f"{n_heads} heads")
    )
    heads = {DECODED: f"{summary.n_decoded} heads", undecoded: some, JUDGED: f"{summary.n_decoded} heads"}
    if few:
        heads[UNDECODED] = f"all {n_heads} heads"
    names = {UNDECODED_SAME: UNDECODED}
    signed_effect, unsigned_effect = summary.main, summary.main.unsigned

    def value(strength: str, score: str, compare: str, effect: Effect, statistic: str) -> Estimate | None:
        return summary.correlation(strength, score, compare, effect, statistic)

    wanted = (
        (DECODED, target, signed_effect, "spearman"),
        (undecoded, target, signed_effect, "spearman"),
        (DECODED, target, signed_effect, "interaction"),
        (undecoded, target, signed_effect, "interaction"),
        (JUDGED, target, signed_effect, "spearman"),
        (DECODED, INPUT, signed_effect, "spearman"),
        (JUDGED, INPUT, signed_effect, "spearman"),
        (DECODED, INPUT, unsigned_effect, "spearman"),
        (undecoded, INPUT, unsigned_effect, "spearman"),
        (JUDGED, INPUT, unsigned_effect, "spearman"),
        *([(UNDECODED, target, signed_effect, "spearman")] if few else []),
    )
    first = summary.points[0].strength
    columns = [column for column in wanted if value(first, *column) is not None]
    headings = [
        f"{names.get(score, score)} ({heads[score]}), {compare}: {'signed' if effect.target else 'unsigned'}"
        f"{', head means removed' if statistic == 'interaction' else ''}"
        for score, compare, effect, statistic in columns
    ]
    return table(
        ["strength", *headings],
        [
            [point.strength, *(interval(value(point.strength, *column)) for column in columns)]
            for point in summary.points
        ],
    )


def _pictures(summary: StrengthSummary) -> str:
    return table(
        [
            "strength",
            "rho, median",
            "fidelity",
            f"similarity with {summary.target}",
            "atypical (nearest neighbour)",
            "atypical (Mahalanobis)",
        ],
        [
            [
                point.strength,
                f"{point.rho:.2f}",
                interval(point.fidelity),
                interval(point.similarity[DECODED][summary.target]),
                percent(point.typicality[NEAREST].beyond),
                percent(point.typicality[MAHALANOBIS].beyond),
            ]
            for point in summary.points
        ],
    )
