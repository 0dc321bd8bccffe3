"""Summary of the importance study, computed from its stored parts alone.

Scores and effects are tables (P,N) over pictures and heads. Differences are paired, picture by picture.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steerlens.progress import Progress
from steerlens.sites import Site
from steerlens.studies.importance.results import Difference, ImportanceSetup, ImportanceSummary, Row
from steerlens.studies.importance.scores import (
    ONE_FACTOR_KIND,
    PLAIN_KIND,
    UNDECODED,
    Choices,
    LensScore,
    lens_scores,
    plain_scores,
)
from steerlens.studies.importance.variants import variants
from steerlens.studies.shared.attenuation import Attenuation, attenuation, fidelity_table
from steerlens.studies.shared.candidates import CHOSEN, PLAIN
from steerlens.studies.shared.effects import Effect, all_effects
from steerlens.studies.shared.measurements import CONTROL, PictureTables
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
from steerlens.studies.shared.targets import INPUT

CEILING, ATTRIBUTION = "exact direct effect (ceiling)", "attribution patching"

_FEWER_DRAWS = 5
"""Factor by which effects that no verdict uses take fewer bootstrap draws."""


@dataclass(frozen=True, eq=False)
class _Scores:
    """Scores of the reported pictures, and their statistics."""

    tables: PictureTables
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
        """The scores, with two estimates of the effect: attribution patching and the exact direct effect."""
        scores, first_order = dict(self.scores), effect.first_order(self.tables)
        if first_order is not None:
            scores[ATTRIBUTION] = first_order
        if effect.scope == "total":
            scores[CEILING] = Effect("direct", effect.target, effect.ablation).table(self.tables)
        return scores

    def rows(self, effect: Effect, statistics: Mapping[str, Correlation], draws: int, *, null: bool) -> list[Row]:
        values = effect.table(self.tables)
        return [
            Row(
                name,
                effect,
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
            effect.table(self.tables),
            self.concepts,
            correlation=self.statistics[statistic],
            draws=self.draws,
        )
        return Difference(name, first, second, effect, statistic, estimate)


def _scores(
    tables: PictureTables, concepts: Sequence[str], sites: Sequence[Site], choices: Choices, main: Effect, draws: int
) -> _Scores:
    lens = {score.name: score for score in lens_scores(tables, choices, main)}
    scores = {name: score.table(tables) for name, score in lens.items()} | plain_scores(tables, sites)
    return _Scores(tables, concepts, sites, scores, lens, draws)


def summarise(
    tables: PictureTables,
    concepts: Sequence[str],
    sites: Sequence[Site],
    choices: Choices,
    main: Effect,
    *,
    setup: ImportanceSetup | None = None,
    draws: int = 1000,
) -> Generator[Progress, None, ImportanceSummary]:
    """Computes everything that the study reports.

    Args:
        tables: measurements of the pictures to report on.
        concepts: concept of each picture.
        sites: the heads.
        choices: the frozen setting of each lens.
        main: the effect by which they were chosen.
        setup: options that the summary repeats.
        draws: bootstrap draws.

    Yields:
        Progress; the summary is the return value.

    Raises:
        StoreError: if the parts do not fit the choices.
    """
    scores = _scores(tables, concepts, sites, choices, main, draws)
    published = Effect("total", "", main.ablation)
    rows: list[Row] = []
    effects = all_effects(tables, main.ablation)
    yield Progress("statistics", 0, 1)
    for number, effect in enumerate(effects, start=1):
        in_verdict = effect in (main, published)
        statistics = scores.statistics if in_verdict else {"spearman": spearman}
        n_draws = draws if in_verdict else max(1, draws // _FEWER_DRAWS)
        rows += scores.rows(effect, statistics, n_draws, null=in_verdict)
        yield Progress("statistics", number / (len(effects) + 1), 1)
    values = main.table(tables)
    by_head = values.mean(dim=0)
    beats, layers = _beats_control(tables), [site.layer for site in sites]
    ordered = by_head.argsort(descending=True)[:10].tolist()
    return ImportanceSummary(
        setup=setup or ImportanceSetup(),
        n_pictures=len(tables),
        n_concepts=len(set(concepts)),
        n_heads=len(sites),
        main=main,
        published=published,
        choices=choices,
        rows=tuple(rows),
        differences=_differences(scores, main, published),
        ceiling_share=_ceiling_share(scores, main),
        variants=variants(tables, concepts, main, draws=draws),
        reliability={
            score.name: seed_reliability(tables.decoded_scores(score.setting, score.compare))
            for score in scores.lens.values()
            if score.view == "decoded"
        },
        attenuation=_attenuation(scores, values),
        beats_control=mean_estimate(beats, concepts, draws=draws),
        beats_by_layer=_by_layer(beats.mean(dim=0), layers),
        effect_by_layer=_by_layer(by_head, layers),
        strongest=tuple((sites[index].label, float(by_head[index])) for index in ordered),
    )


def _by_layer(values: Float[Tensor, "N"], layers: Sequence[int]) -> tuple[float, ...]:
    return tuple(
        float(values[[place for place, own in enumerate(layers) if own == layer]].mean())
        for layer in sorted(set(layers))
    )


def _differences(scores: _Scores, main: Effect, published: Effect) -> tuple[Difference, ...]:
    """Steering Lens minus Diffusion Lens in every common view, and the paper's comparison with one factor."""
    steering = [score for score in scores.lens.values() if score.setting.lens == "steering"]
    compared = [
        (score.label, score.name, second, main)
        for score in steering
        if score.kind != ONE_FACTOR_KIND and (second := score.name_of("diffusion")) in scores.lens
    ]
    compared += [
        (score.name, score.name, score.name_of("diffusion", PLAIN_KIND), published)
        for score in steering
        if score.kind == ONE_FACTOR_KIND
    ]
    return tuple(
        scores.difference(name, first, second, effect, statistic)
        for name, first, second, effect in compared
        for statistic in ("spearman", "interaction")
    )


def _ceiling_share(scores: _Scores, main: Effect) -> dict[str, Estimate]:
    if main.scope == "direct":
        return {}
    against, effect = scores.against(main), main.table(scores.tables)
    return {
        label: ratio_estimate(
            against[f"steering, {label}"], against[CEILING], effect, scores.concepts, draws=scores.draws
        )
        for label in (CHOSEN, PLAIN_KIND, f"{CHOSEN}, {UNDECODED}")
    }


def _attenuation(scores: _Scores, effect: Float[Tensor, "P N"]) -> tuple[Attenuation, ...]:
    tables = scores.tables
    return tuple(
        attenuation(
            score.name,
            tables.requested_scores(score.setting, score.compare),
            tables.decoded_scores(score.setting, score.compare),
            effect,
            fidelity_table(tables.requested(score.setting), tables.decoded(score.setting)),
            scores.concepts,
            draws=scores.draws,
        )
        for score in scores.lens.values()
        if score.view == "decoded"
    )


def _beats_control(tables: PictureTables) -> Float[Tensor, "P N"]:
    """Share of seeds with a head's picture closer to the input than its control's, in the plain setting."""
    seeds = tables.seeds(PLAIN[0], CONTROL)
    head, control = (tables.decoded_scores(name, INPUT, seeds=seeds) for name in (PLAIN[0], CONTROL))
    return (head > control).float().mean(dim=0)


def table_rows(
    tables: PictureTables,
    pictures: Sequence[tuple[str, str]],
    sites: Sequence[Site],
    choices: Choices,
    main: Effect,
) -> list[dict[str, Any]]:
    """Rows of the study's table, one per picture and head, with every score and effect.

    Args:
        tables: measurements of the pictures to report on.
        pictures: id and concept of each picture.
        sites: the heads.
        choices: the frozen settings.
        main: the main effect.

    Raises:
        StoreError: if the parts do not fit the choices.
    """
    columns = dict(_scores(tables, [], sites, choices, main, 0).scores)
    for effect in all_effects(tables, main.ablation):
        columns[f"effect: {effect}"] = effect.table(tables)
        if effect.scope == "total" and (first_order := effect.first_order(tables)) is not None:
            columns[f"{ATTRIBUTION}: signed towards {effect.target}, {effect.ablation}"] = first_order
    return [
        {"picture": id, "concept": concept, "site": str(site), "layer": site.layer, "head": site.head}
        | {name: float(values[row, column]) for name, values in columns.items()}
        for row, (id, concept) in enumerate(pictures)
        for column, site in enumerate(sites)
    ]
