"""Baselines of the importance study: partial and pooled correlations, other targets, and the oracle.

All figures are computed from stored parts. A figure whose measurements a part of an earlier version lacks is left out.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.scores import cosine_similarity
from steerlens.studies.importance.results import OracleShare, TargetNull
from steerlens.studies.importance.scores import PLAIN_KIND, UNDECODED, LensScore, oracle_scores
from steerlens.studies.shared.ablation import Ablation, signed_effect
from steerlens.studies.shared.candidates import PLAIN
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.measurements import PictureTables
from steerlens.studies.shared.stats import (
    Estimate,
    correlation_estimate,
    of_draws,
    ratio_estimate,
    spearman,
    two_way_bootstrap,
)
from steerlens.studies.shared.targets import INPUT, TEXT

TABLE_ABLATIONS: tuple[Ablation, ...] = ("zero", "mean")
"""Ablations of the main table."""

FEWEST_RECOGNISED = 4
"""Least number of recognised pictures on which effects towards labels are reported; below it, all pictures count."""

_OTHER_TARGETS = 8
"""Number of other labels, and of random vectors, over which nulls are averaged."""


def table_effects(tables: PictureTables, main: Effect) -> tuple[Effect, ...]:
    """Effects of the main table: total, unsigned and signed, by zero and mean ablation, as far as measured."""
    target = main.target or next(iter(tables.targets), "")
    effects = [Effect("total", to, name) for to in dict.fromkeys(("", target)) for name in TABLE_ABLATIONS]
    return tuple(effect for effect in effects if effect.ablation in tables.ablations)


def counted_rows(tables: PictureTables, effect: Effect) -> list[int]:
    """Rows of the pictures that count for an effect.

    Towards labels, these are the pictures that the encoder recognises, if that is known and there are enough.
    """
    recognised = tables.recognised if effect.target == TEXT else None
    if recognised is None or len(recognised) < FEWEST_RECOGNISED:
        return list(range(len(tables)))
    return list(recognised)


def target_nulls(
    tables: PictureTables, effects: Sequence[Effect], concepts: Sequence[str], *, draws: int
) -> Iterator[TargetNull]:
    """Turns plain scores and signed effects towards labels of other pictures, and towards random vectors.

    Args:
        tables: measurements of the counted pictures.
        effects: effects, of which those towards labels are used.
        concepts: concept of each picture.
        draws: bootstrap draws.
    """
    if TEXT not in tables.targets or len(set(concepts)) < 3:
        return
    own, other = tables.compared(TEXT), _other_labels(tables.compared(TEXT), concepts)
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(_OTHER_TARGETS, 1, own.shape[-1], generator=generator).expand(-1, len(own), -1)
    for effect in effects:
        if effect.target != TEXT:
            continue
        ablated = tables.ablated(effect.scope, effect.ablation)
        for name, embeddings in _plain_embeddings(tables).items():

            def towards(targets: Tensor, embeddings: Tensor = embeddings, ablated: Tensor = ablated) -> Estimate:
                return _towards(embeddings, tables.clean, ablated, targets, concepts, draws)

            yield TargetNull(name, effect, towards(own[None]), towards(other), towards(random))


def _plain_embeddings(tables: PictureTables) -> dict[str, Float[Tensor, "P N E"]]:
    """Embeddings of plain settings, requested and, with the first seed, decoded."""
    embeddings: dict[str, Tensor] = {}
    for setting in PLAIN:
        if tables.is_decoded(setting):
            first = tables.seeds(setting)[:1]
            embeddings[f"{setting.lens}, {PLAIN_KIND}"] = tables.decoded(setting, seeds=first)[0]
        embeddings[f"{setting.lens}, {PLAIN_KIND}, {UNDECODED}"] = tables.requested(setting)
    return embeddings


def _other_labels(labels: Float[Tensor, "P E"], concepts: Sequence[str]) -> Float[Tensor, "K P E"]:
    """Labels of the next pictures of other concepts, one row of pictures per step."""
    P, rows = len(concepts), list[list[int]]()
    for place, concept in enumerate(concepts):
        others = [row % P for row in range(place + 1, place + P) if concepts[row % P] != concept]
        rows.append([others[step % len(others)] for step in range(_OTHER_TARGETS)])
    return labels[torch.tensor(rows).T]


def _towards(
    embeddings: Float[Tensor, "P N E"],
    clean: Float[Tensor, "P E"],
    ablated: Float[Tensor, "P N E"],
    targets: Float[Tensor, "K P E"],
    concepts: Sequence[str],
    draws: int,
) -> Estimate:
    """Correlation of similarity with a target and loss of that similarity, mean over targets and pictures."""
    sides = [
        (cosine_similarity(embeddings, target[:, None]), signed_effect(clean, ablated, target)) for target in targets
    ]

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        rows = [of_draws(spearman, score, effect, pictures, columns).nanmean(dim=-1) for score, effect in sides]
        return torch.stack(rows).mean(dim=0)

    return two_way_bootstrap(statistic, concepts, embeddings.shape[1], draws=draws)


def oracle_shares(
    tables: PictureTables,
    effects: Sequence[Effect],
    lens: Mapping[str, LensScore],
    concepts: Sequence[str],
    *,
    draws: int,
) -> Iterator[OracleShare]:
    """Compares the lenses' plain decoded scores with the decoded true effect, on the same seed.

    Args:
        tables: measurements of the counted pictures.
        effects: effects whose true displacement was decoded.
        lens: the lenses' scores by name.
        concepts: concept of each picture.
        draws: bootstrap draws.
    """
    for effect in effects:
        values = effect.table(tables)
        decoded, requested = (oracle_scores(tables, effect, decoded=side) for side in (True, False))
        if not decoded:
            continue
        for name, score in decoded.items():
            most = correlation_estimate(score, values, concepts, draws=draws)
            before = correlation_estimate(requested[name], values, concepts, draws=draws)
            for own in lens.values():
                if own.kind != PLAIN_KIND or own.view != "decoded" or own.compare != (effect.target or INPUT):
                    continue
                seeds = tables.seeds(own.setting, name)
                mean = tables.decoded_scores(own.setting, own.compare, seeds=seeds).mean(dim=0)
                yield OracleShare(
                    effect,
                    own.name,
                    name,
                    correlation_estimate(mean, values, concepts, draws=draws),
                    most,
                    ratio_estimate(mean, score, values, concepts, draws=draws),
                    before,
                )
