"""Summary of the decoder study, computed from its stored parts alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.decoders import DecodeOptions
from steerlens.errors import StoreError
from steerlens.sites import Site
from steerlens.studies.decoder.measure import SettingPart
from steerlens.studies.decoder.options import DecoderOptions, axis_of, setting_name
from steerlens.studies.decoder.results import DecoderSummary, SettingRow, SettingView
from steerlens.studies.decoder.scores import (
    Decodings,
    Statistic,
    agreements,
    ceiling_statistic,
    decoded,
    noiseless_ceiling,
    noiseless_statistic,
    ranking_statistic,
    unrelated,
)
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.measurements import Viewer, stacked
from steerlens.studies.shared.stats import Estimate, mean_estimate, seed_reliability, two_way_bootstrap


def summarise(
    decodings: Decodings,
    options: DecoderOptions,
    n_heads: int,
    wanted: float,
    *,
    judge: JudgeName | None = None,
    command: str = "",
    model: str = "",
) -> DecoderSummary:
    """Computes everything that the study reports.

    Args:
        decodings: the measurements.
        options: options of the study.
        n_heads: number of heads of the model.
        wanted: share of the ceiling that is enough.
        judge: the outside judge, or None.
        command: the command.
        model: name of the pair.

    Raises:
        StoreError: if the measurements do not fit the options.
    """
    if len(decodings.settings) != len(options.settings):
        raise StoreError("the parts of this study do not fit its settings.")
    default = options.default
    rows = tuple(
        _row(decodings, parts, setting, axis_of(setting, default))
        for parts, setting in zip(decodings.settings, options.settings, strict=True)
    )
    reference = decodings.scores(decodings.reference)
    # A share of a ceiling of 0 or less means nothing.
    positive = float(ceiling_statistic(reference)(*_all(reference))[0]) > 0
    enough = [row for row in rows if positive and row.own.share.value >= wanted]
    certain = [row for row in enough if row.own.share.low >= wanted]
    undecoded, ceiling = noiseless_statistic(decodings.requested_scores(), reference), noiseless_ceiling(reference)
    agreement = rows[0].own.agreement
    return DecoderSummary(
        n_pictures=len(decodings.subjects),
        n_concepts=len(set(decodings.concepts)),
        n_heads=n_heads,
        n_decoded=reference.shape[-1],
        seeds=options.seeds,
        reference_seeds=options.decodings()[0].seeds,
        strength=str(options.strength),
        target=decodings.target,
        reference=_row(decodings, decodings.reference, options.reference, "reference"),
        seed_to_seed=seed_reliability(reference),
        undecoded=_estimate(decodings, undecoded),
        undecoded_ceiling=_estimate(decodings, ceiling),
        undecoded_share=_share(decodings, undecoded, ceiling),
        rows=rows,
        wanted=wanted,
        reaching=_cheapest_first(enough),
        certain=_cheapest_first(certain),
        cheapest_steps=_fewest_steps(enough),
        certain_steps=_fewest_steps(certain),
        invented=Estimate(1 - agreement.value, 1 - agreement.high, 1 - agreement.low),
        judge=judge,
        command=command,
        model=model,
        baselines={
            name: _estimate(decodings, noiseless_statistic(table, reference))
            for name, table in decodings.baselines().items()
        },
    )


def _cheapest_first(rows: Sequence[SettingRow]) -> tuple[str, ...]:
    return tuple(row.name for row in sorted(rows, key=lambda row: row.passes))


def _fewest_steps(rows: Sequence[SettingRow]) -> int | None:
    return min((row.steps for row in rows if row.axis in ("default", "steps")), default=None)


def _row(decodings: Decodings, parts: Sequence[SettingPart], options: DecodeOptions, axis: str) -> SettingRow:
    return SettingRow(
        name=setting_name(options),
        axis=axis,
        steps=options.steps,
        passes=options.passes,
        fidelity=mean_estimate(decodings.fidelity(parts), decodings.concepts, draws=decodings.draws),
        own=_view(decodings, parts, "encoder"),
        judged=_view(decodings, parts, "judge") if decodings.judged else None,
    )


def _view(decodings: Decodings, parts: Sequence[SettingPart], viewer: Viewer) -> SettingView:
    reference = decodings.scores(decodings.reference, viewer)
    if parts is decodings.reference:
        statistic = ceiling_statistic(reference)
    else:
        statistic = ranking_statistic(decodings.scores(parts, viewer), reference)
    pictures = decoded(parts, viewer)
    return SettingView(
        rank_correlation=_estimate(decodings, statistic),
        share=_share(decodings, statistic, ceiling_statistic(reference)),
        agreement=mean_estimate(agreements(pictures), decodings.concepts, draws=decodings.draws),
        unrelated=unrelated(pictures),
    )


def _estimate(decodings: Decodings, statistic: Statistic) -> Estimate:
    return two_way_bootstrap(statistic, decodings.concepts, decodings.requested.shape[1], draws=decodings.draws)


def _share(decodings: Decodings, statistic: Statistic, ceiling: Statistic) -> Estimate:
    """Estimates a statistic as a share of a ceiling; without an interval if that is not shown to be above 0."""

    def share(pictures: Tensor, columns: Tensor) -> Tensor:
        most = ceiling(pictures, columns)
        return statistic(pictures, columns) / most.where(most > 0, torch.nan)

    heads = decodings.requested.shape[1]
    return two_way_bootstrap(share, decodings.concepts, heads, draws=decodings.draws, ratio=True)


def _all(table: Float[Tensor, "S P N"]) -> tuple[Tensor, Tensor]:
    return torch.arange(table.shape[1])[None], torch.arange(table.shape[2])[None]


def timings(decodings: Decodings, options: DecoderOptions) -> dict[str, dict[str, float]]:
    """Seconds to decode and embed one picture at each setting, median over inputs; not part of the summary."""
    rows = {"reference": (decodings.reference, options.reference)}
    rows |= {
        setting_name(setting): (parts, setting)
        for parts, setting in zip(decodings.settings, options.settings, strict=True)
    }
    return {
        name: {
            "passes": setting.passes,
            "seconds": float(stacked([part.seconds for part in parts], "seconds").median()),
        }
        for name, (parts, setting) in rows.items()
    }


def table_rows(
    decodings: Decodings, options: DecoderOptions, pictures: Sequence[tuple[str, str]], heads: Sequence[Site]
) -> list[dict[str, Any]]:
    """Rows of the study's table, one per setting, picture and head, with means over seeds.

    Args:
        decodings: the measurements.
        options: options of the study.
        pictures: id and concept of each picture.
        heads: the decoded heads.
    """
    named: list[tuple[str, Sequence[SettingPart]]] = [("reference", decodings.reference)]
    named += [
        (setting_name(setting), parts) for setting, parts in zip(options.settings, decodings.settings, strict=True)
    ]
    requested = decodings.requested_scores()
    rows: list[dict[str, Any]] = []
    for name, parts in named:
        tables: Mapping[str, Tensor] = {
            f"similarity with {decodings.target}": decodings.scores(parts).mean(dim=0),
            f"similarity with {decodings.target}, not decoded": requested,
            "agreement over seeds": agreements(decoded(parts)),
            "fidelity": decodings.fidelity(parts),
        }
        rows += [
            {"setting": name, "picture": id, "concept": concept, "site": str(site)}
            | {column: float(table[row, place]) for column, table in tables.items()}
            for row, (id, concept) in enumerate(pictures)
            for place, site in enumerate(heads)
        ]
    return rows
