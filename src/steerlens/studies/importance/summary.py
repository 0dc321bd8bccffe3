"""Every figure of the importance study, from the parts that it stored and nothing else.

Scores and effects become tables (P,N) over pictures and heads: `importance_effects.py` and `importance_scores.py` say
which. Differences are paired, picture by picture, and each names the two scores and the effect that it is of.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steerlens.progress import Progress
from steerlens.sites import Site
from steerlens.studies.importance.results import LAYOUT, Difference, Row, Setup, Summary
from steerlens.studies.importance.variants import variants
from steerlens.studies.shared.attenuation import Attenuation, attenuation, fidelity_table
from steerlens.studies.shared.candidates import PLAIN
from steerlens.studies.shared.notions import INPUT, Effect, Parts, all_effects, stacked
from steerlens.studies.shared.scores import (
    PUBLISHED_NAME,
    Choices,
    LensScore,
    asked_score,
    common_seeds,
    lens_scores,
    made_embeddings,
    made_scores,
    plain_scores,
)
from steerlens.studies.shared.stats import (
    Correlation,
    Estimate,
    correlation_estimate,
    difference_estimate,
    interaction,
    interaction_pearson,
    mean_estimate,
    mismatched,
    pearson,
    ratio_estimate,
    seed_reliability,
    spearman,
    within_layers,
)

__all__ = [
    "ATTRIBUTION",
    "CEILING",
    "INPUT",
    "Effect",
    "Parts",
    "asked_score",
    "made_scores",
    "stacked",
    "summarise",
    "table_rows",
]

CEILING, ATTRIBUTION = "exact direct effect (ceiling)", "attribution patching"

_OTHER_DRAWS = 5
"""Intervals of effects that are neither the main one nor the paper's, which no verdict uses, take so many times fewer
draws."""


@dataclass(frozen=True, eq=False)
class _Tables:
    """Scores of reported pictures, and how they are held against effects."""

    parts: Parts
    concepts: Sequence[str]
    sites: Sequence[Site]
    scores: Mapping[str, Float[Tensor, "P N"]]
    lens: Mapping[str, LensScore]
    draws: int

    @property
    def statistics(self) -> dict[str, Correlation]:
        return {
            "spearman": spearman,
            "pearson": pearson,
            "interaction": interaction,
            "interaction pearson": interaction_pearson,
            "within layers": within_layers([site.layer for site in self.sites]),
        }

    def against(self, effect: Effect) -> dict[str, Tensor]:
        """The scores, and what estimates the total effect: attribution patching, and the exact direct effect."""
        found, first_order = dict(self.scores), effect.first_order(self.parts)
        if first_order is not None:
            found[ATTRIBUTION] = first_order
        if effect.scope == "total":
            found[CEILING] = Effect("direct", effect.target, effect.ablation).table(self.parts)
        return found

    def rows(self, effect: Effect, statistics: Mapping[str, Correlation], draws: int, *, null: bool) -> list[Row]:
        values = effect.table(self.parts)
        return [
            Row(
                name,
                str(effect),
                statistic,
                correlation_estimate(score, values, self.concepts, correlation=correlation, draws=draws),
                mismatched(score, values, correlation) if null else float("nan"),
                name in self.lens and self.lens[name].by_construction(effect),
            )
            for name, score in self.against(effect).items()
            for statistic, correlation in statistics.items()
        ]

    def difference(self, name: str, first: str, second: str, effect: Effect, statistic: str) -> Difference:
        estimate = difference_estimate(
            self.scores[first],
            self.scores[second],
            effect.table(self.parts),
            self.concepts,
            correlation=self.statistics[statistic],
            draws=self.draws,
        )
        return Difference(name, first, second, str(effect), statistic, estimate)


def _tables(
    parts: Parts, concepts: Sequence[str], sites: Sequence[Site], choices: Choices, main: Effect, draws: int
) -> _Tables:
    lens = {score.name: score for score in lens_scores(parts, choices, main)}
    scores = {name: score.table(parts) for name, score in lens.items()} | plain_scores(parts, sites)
    return _Tables(parts, concepts, sites, scores, lens, draws)


def summarise(
    parts: Parts,
    concepts: Sequence[str],
    sites: Sequence[Site],
    choices: Choices,
    main: Effect,
    *,
    setup: Setup | None = None,
    draws: int = 1000,
) -> Generator[Progress, None, Summary]:
    """Everything that the study reports.

    Args:
        parts: of the pictures to report on.
        concepts: of those pictures.
        sites: the heads.
        choices: the frozen setting of each lens.
        main: the effect that they were chosen for.
        setup: what was asked for, to be repeated in the summary.
        draws: bootstrap draws.

    Yields:
        How far it is; at the end it returns the summary.

    Raises:
        StoreError: if the parts are not those of the choices.
    """
    found = _tables(parts, concepts, sites, choices, main, draws)
    published = Effect("total", "", main.ablation)
    rows: list[Row] = []
    effects = all_effects(parts, main.ablation)
    yield Progress("statistics", 0, 1)
    for number, effect in enumerate(effects, start=1):
        weighty = effect in (main, published)
        used = found.statistics if weighty else {"spearman": spearman}
        rows += found.rows(effect, used, draws if weighty else max(1, draws // _OTHER_DRAWS), null=weighty)
        yield Progress("statistics", number / (len(effects) + 1), 1)
    values = main.table(parts)
    by_head = values.mean(dim=0)
    beats, layers = _beats_control(parts), [site.layer for site in sites]
    ordered = by_head.argsort(descending=True)[:10].tolist()
    return Summary(
        layout=LAYOUT,
        setup=setup or Setup(),
        n_pictures=len(parts),
        n_concepts=len(set(concepts)),
        n_heads=len(sites),
        main=str(main),
        published=str(published),
        choices=choices,
        rows=tuple(rows),
        differences=_differences(found, main, published),
        ceiling_share=_ceiling_share(found, main),
        variants=variants(parts, concepts, main, draws=draws),
        reliability={
            score.name: seed_reliability(made_scores(parts, str(score.setting), score.compare))
            for score in found.lens.values()
            if score.seen == "made"
        },
        attenuation=_attenuation(found, values),
        beats_control=mean_estimate(beats, concepts, draws=draws),
        beats_by_layer=_by_layer(beats.mean(dim=0), layers),
        effect_by_layer=_by_layer(by_head, layers),
        strongest=tuple((sites[index].label, float(by_head[index])) for index in ordered),
    )


def _by_layer(values: Float[Tensor, "N"], layers: Sequence[int]) -> tuple[float, ...]:
    return tuple(float(values[[i for i, own in enumerate(layers) if own == n]].mean()) for n in sorted(set(layers)))


def _differences(found: _Tables, main: Effect, published: Effect) -> tuple[Difference, ...]:
    """Steering Lens minus Diffusion Lens wherever both were seen in the same way; the paper's comparison as well."""
    starts, ends = "steering, ", "diffusion, "
    pairs = [
        (name.removeprefix(starts), name, name.replace(starts, ends))
        for name in found.lens
        if name.startswith(starts) and name.replace(starts, ends) in found.lens
    ]
    paper = [
        (name, name, name.replace(PUBLISHED_NAME, f"{ends}plain"))
        for name in found.lens
        if name.startswith(PUBLISHED_NAME)
    ]
    return (
        *(found.difference(*pair, main, statistic) for pair in pairs for statistic in ("spearman", "interaction")),
        *(found.difference(*pair, published, statistic) for pair in paper for statistic in ("spearman", "interaction")),
    )


def _ceiling_share(found: _Tables, main: Effect) -> dict[str, Estimate]:
    if main.scope == "direct":
        return {}
    against, effect = found.against(main), main.table(found.parts)
    return {
        name: ratio_estimate(against[f"steering, {name}"], against[CEILING], effect, found.concepts, draws=found.draws)
        for name in ("chosen", "plain", "chosen, not decoded")
    }


def _attenuation(found: _Tables, effect: Float[Tensor, "P N"]) -> tuple[Attenuation, ...]:
    parts = found.parts
    return tuple(
        attenuation(
            score.name,
            asked_score(parts, str(score.setting), score.compare),
            made_scores(parts, str(score.setting), score.compare),
            effect,
            fidelity_table(stacked(parts, f"asked.{score.setting}"), made_embeddings(parts, str(score.setting))),
            found.concepts,
            draws=found.draws,
        )
        for score in found.lens.values()
        if score.seen == "made"
    )


def _beats_control(parts: Parts) -> Float[Tensor, "P N"]:
    """Same seed, same strength: the head's picture against the random direction's, in the plain setting."""
    plain = str(PLAIN[0])
    seeds = common_seeds(parts, plain, "control")
    head, control = (made_scores(parts, name, INPUT, seeds=seeds) for name in (plain, "control"))
    return (head > control).float().mean(dim=0)


def table_rows(
    parts: Parts,
    pictures: Sequence[tuple[str, str]],
    sites: Sequence[Site],
    choices: Choices,
    main: Effect,
) -> list[dict[str, Any]]:
    """One row a picture and head, with every score and effect: the table that others can work with.

    Args:
        parts: of the pictures to report on.
        pictures: id and concept of each.
        sites: the heads.
        choices: the frozen settings.
        main: the main effect.

    Raises:
        StoreError: if the parts are not those of the choices.
    """
    columns = dict(_tables(parts, [], sites, choices, main, 0).scores)
    for effect in all_effects(parts, main.ablation):
        columns[f"effect: {effect}"] = effect.table(parts)
        if effect.scope == "total" and (first_order := effect.first_order(parts)) is not None:
            columns[f"{ATTRIBUTION}: signed towards {effect.target}, {effect.ablation}"] = first_order
    return [
        {"picture": id, "concept": concept, "site": str(site), "layer": site.layer, "head": site.head}
        | {name: float(values[row, column]) for name, values in columns.items()}
        for row, (id, concept) in enumerate(pictures)
        for column, site in enumerate(sites)
    ]
