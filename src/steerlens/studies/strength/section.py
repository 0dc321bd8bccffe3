"""The page of the strength study: the sweep, the rule and its recommendation."""

from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.markdown import figure, interval, judged_by, percent, resampled, signed, table
from steerlens.studies.shared.stats import Estimate
from steerlens.studies.shared.targets import INPUT
from steerlens.studies.strength.findings import choice_words
from steerlens.studies.strength.results import StrengthSummary
from steerlens.studies.strength.scores import DECODED, JUDGED, MAHALANOBIS, NEAREST, UNDECODED, UNDECODED_SAME


def strength_section(summary: StrengthSummary) -> str:
    """The study's page below its findings."""
    rule, target = summary.recommendation, summary.target
    clean = {kind: typicality.beyond for kind, typicality in summary.clean_typicality.items()}
    differences = rule.differences or {}
    lines = [
        f"{summary.n_pictures} pictures of {summary.n_concepts} concepts (chosen on {summary.n_chosen} of "
        f"others), {summary.n_decoded} of {summary.n_heads} heads decoded; effect: {summary.main}. Fidelity "
        "is the cosine of the decoded picture with the requested embedding; typicality the share of steered embeddings "
        f"that lie farther from {summary.n_references} unstudied real ones than 95 % of these lie from each other. "
        f"{resampled(min(summary.n_concepts, summary.n_chosen_concepts))}\n",
        *judged_by(summary.judge),
        f"    {summary.command or 'steerlens study strength --data DATA --out studies/strength'}\n",
        figure("Correlation, fidelity, similarity and typicality over the sweep", "strength-sweep"),
        "## The sweep\n",
        "Spearman correlation over heads of the similarity (of decoded pictures or not) with the target or the input, "
        "and the total effect of ablation:\n",
        _correlations(summary),
        _pictures(summary),
        f"Unsteered pictures: fidelity {interval(summary.clean_fidelity)}, beyond 95 % of real ones "
        f"{percent(clean[NEAREST])} (nearest neighbour) and {percent(clean[MAHALANOBIS])} (Mahalanobis).\n",
        "## The rule\n",
        f"The rule: {rule.rule}.\n",
        f"It gives **{rule.strength or 'none'}**. {choice_words(rule)}\n",
        f"Paired differences are of the recommended strength's correlation with the {target} minus each other's, on "
        "the concepts reported on:\n",
        figure("The rule applied", "strength-choice"),
        table(
            ["strength", "correlation where chosen", "fidelity, share", "atypical", "within bounds", "difference"],
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
        figure("Single heads, steered harder and harder", "strength-pictures"),
    ]
    return "\n".join(lines)


def _correlations(summary: StrengthSummary) -> str:
    """Correlations of every score with the effects, a column each, as far as they were measured."""
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
            "beyond 95 %: nearest",
            "Mahalanobis",
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
