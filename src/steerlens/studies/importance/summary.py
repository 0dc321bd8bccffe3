"""Summary of the importance study, computed from its stored parts alone.

Scores and effects are tables (P,N) over pictures and heads. Differences are paired, picture by picture.
"""

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steerlens.progress import Progress
from steerlens.sites import Site
from steerlens.studies.importance.baselines import counted_rows, oracle_shares, table_effects, target_nulls
from steerlens.studies.importance.results import (
    Difference,
    ImportanceSetup,
    ImportanceSummary,
    Row,
)
from steerlens.studies.importance.scored import ATTRIBUTION, CEILING, FEWER_DRAWS, Scored, score_pictures
from steerlens.studies.importance.scores import (
    ONE_FACTOR_KIND,
    PLAIN_KIND,
    UNDECODED,
    Choices,
)
from steerlens.studies.importance.variants import variants
from steerlens.studies.shared.attenuation import Attenuation, attenuation, fidelity_table
from steerlens.studies.shared.candidates import CHOSEN, PLAIN
from steerlens.studies.shared.effects import Effect, all_effects
from steerlens.studies.shared.measurements import CONTROL, PictureTables
from steerlens.studies.shared.remainder import Remainder, remainders_of
from steerlens.studies.shared.stats import (
    Estimate,
    mean_estimate,
    ratio_estimate,
    seed_reliability,
    spearman,
)
from steerlens.studies.shared.targets import INPUT, TEXT

_UNDEFINED = Estimate(float("nan"), float("nan"), float("nan"))


def summarise(
    tables: PictureTables,
    concepts: Sequence[str],
    sites: Sequence[Site],
    choices: Choices,
    main: Effect,
    *,
    remainders: Sequence[Site] = (),
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
        remainders: error and bias of the autoencoder, if features were studied.
        setup: options that the summary repeats.
        draws: bootstrap draws.

    Yields:
        Progress; the summary is the return value.

    Raises:
        StoreError: if the parts do not fit the choices.
    """
    counted = {
        rows: score_pictures(tables.rows(rows), [concepts[row] for row in rows], sites, choices, main, draws)
        for effect in (Effect("total", "", main.ablation), main, Effect("total", TEXT, main.ablation))
        for rows in [tuple(counted_rows(tables, effect))]
    }

    def counting(effect: Effect) -> Scored:
        return counted[tuple(counted_rows(tables, effect))]

    published = Effect("total", "", main.ablation)
    rows: list[Row] = []
    differences: list[Difference] = _differences(counting(main), counting(published), main, published)
    effects, in_table = all_effects(tables, main.ablation), table_effects(tables, main)
    yield Progress("statistics", 0, 1)
    for number, effect in enumerate(effects, start=1):
        scores, in_verdict = counting(effect), effect in (main, published)
        statistics = scores.statistics if in_verdict else {"spearman": spearman}
        n_draws = draws if in_verdict else max(1, draws // FEWER_DRAWS)
        measured = (
            scores.rows(effect, statistics, n_draws, null=in_verdict) if in_verdict or effect not in in_table else []
        )
        if effect in in_table:
            known = {(row.score, row.statistic) for row in measured}
            added = scores.table_rows(effect, effect.ablation == main.ablation)
            measured += [row for row in added if (row.score, row.statistic) not in known]
            compared = {(row.name, row.effect, row.statistic) for row in differences}
            differences += [
                row for row in scores.table_differences(effect) if (row.name, row.effect, row.statistic) not in compared
            ]
        rows += measured
        yield Progress("statistics", number / (len(effects) + 1), 1)
    scores = counting(main)
    values = main.table(scores.tables)
    by_head = values.mean(dim=0)
    beats, layers = _beats_control(tables), [site.layer for site in sites]
    ordered = by_head.argsort(descending=True)[:10].tolist()
    labels = counting(Effect("total", TEXT, main.ablation))
    few = max(1, draws // FEWER_DRAWS)
    recognised = tables.recognised if TEXT in tables.targets else None
    return ImportanceSummary(
        setup=setup or ImportanceSetup(),
        n_pictures=len(tables),
        n_concepts=len(set(concepts)),
        n_heads=len(sites),
        main=main,
        published=published,
        choices=choices,
        rows=tuple(rows),
        differences=tuple(differences),
        ceiling_share=_ceiling_share(scores, main),
        variants=variants(scores.tables, scores.concepts, main, draws=draws),
        reliability={
            score.name: seed_reliability(tables.decoded_scores(score.setting, score.compare))
            for score in scores.lens.values()
            if score.view == "decoded"
        },
        attenuation=_attenuation(scores, values),
        beats_control=_UNDEFINED if beats is None else mean_estimate(beats, concepts, draws=draws),
        beats_by_layer=() if beats is None else _by_layer(beats.mean(dim=0), layers),
        effect_by_layer=_by_layer(by_head, layers),
        strongest=tuple((sites[index].label, float(by_head[index])) for index in ordered),
        n_recognised=-1 if recognised is None else len(recognised),
        n_counted=len(labels.tables),
        nulls=tuple(target_nulls(labels.tables, in_table, labels.concepts, draws=few)),
        oracle=tuple(
            share
            for effect in dict.fromkeys((main, published))
            if effect.scope == "total"
            for share in oracle_shares(
                counting(effect).tables, [effect], scores.lens, counting(effect).concepts, draws=draws
            )
        ),
        remainders=_remainders(scores, main, remainders, draws),
    )


def _remainders(scores: Scored, main: Effect, sites: Sequence[Site], draws: int) -> tuple[Remainder, ...]:
    effect = replace(main, scope="total")
    own = effect.of_remainder(scores.tables) if sites else None
    return () if own is None else remainders_of(sites, own, effect.table(scores.tables), scores.concepts, draws)


def _by_layer(values: Float[Tensor, "N"], layers: Sequence[int]) -> tuple[float, ...]:
    return tuple(
        float(values[[place for place, own in enumerate(layers) if own == layer]].mean())
        for layer in sorted(set(layers))
    )


def _differences(scores: Scored, plain: Scored, main: Effect, published: Effect) -> list[Difference]:
    """Steering Lens minus Diffusion Lens in every common view, and the paper's comparison with one factor.

    Args:
        scores: scores of the pictures that count for the main effect.
        plain: scores of all pictures.
        main: the main effect.
        published: the effect of the paper's claim.
    """
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
    return [
        (scores if effect == main else plain).difference(name, first, second, effect, statistic)
        for name, first, second, effect in compared
        for statistic in ("spearman", "interaction")
    ]


def _ceiling_share(scores: Scored, main: Effect) -> dict[str, Estimate]:
    if main.scope == "direct":
        return {}
    against, effect = scores.against(main), main.table(scores.tables)
    return {
        label: ratio_estimate(
            against[f"steering, {label}"], against[CEILING], effect, scores.concepts, draws=scores.draws
        )
        for label in (CHOSEN, PLAIN_KIND, f"{CHOSEN}, {UNDECODED}", f"{PLAIN_KIND}, {UNDECODED}")
        if f"steering, {label}" in against and (label != f"{PLAIN_KIND}, {UNDECODED}" or not scores.has_choices)
    }


def _attenuation(scores: Scored, effect: Float[Tensor, "P N"]) -> tuple[Attenuation, ...]:
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


def _beats_control(tables: PictureTables) -> Float[Tensor, "P N"] | None:
    """Share of seeds with a head's picture closer to the input than its control's, in the plain setting.

    None in a study without a decoder.
    """
    if not tables.is_decoded(CONTROL):
        return None
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
    columns = dict(score_pictures(tables, [id for id, _ in pictures], sites, choices, main, 0).scores)
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
