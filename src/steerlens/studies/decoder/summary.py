"""Every figure of the decoder study, from the parts that it stored and nothing else.

Scores are tables (S,P,N): seeds, pictures, heads. A setting is judged by how well the ranking of heads that one of its
seeds gives agrees with the reference's. The reference's own ceiling is measured in the same way: one of its seeds
against the mean of its others; so a setting's seeds are held against just such means, each reference seed left out in
turn. A ranking without decoding has no seed to be noisy with, so its ceiling is another one: the root of the
reliability of the reference's mean, which is what a ranking without any noise could reach. Time is no part of a
summary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.decoders.base import DecodeOptions
from steerlens.errors import StoreError
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.studies.decoder.measure import DecoderOptions, axis_of, setting_name
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.notions import INPUT, Parts, stacked
from steerlens.studies.shared.stats import (
    Estimate,
    mean_estimate,
    of_draws,
    seed_reliability,
    spearman,
    take,
    two_way_bootstrap,
)

Side = Literal["made", "judge"]
"""Who looks at the pictures: `made`, the encoder whose embeddings were decoded, or `judge`, the outside one."""


@dataclass(frozen=True, eq=False)
class Decodings:
    """What the study stored of all pictures.

    Its tables raise StoreError where a part lacks what the others hold.

    Attributes:
        subjects: parts with what was asked for, one a picture.
        reference: parts of the reference.
        settings: parts of each setting, in the order of the options'.
        concepts: of the pictures.
        target: what pictures are compared with.
        draws: bootstrap draws of intervals.
    """

    subjects: Parts
    reference: Parts
    settings: Sequence[Parts]
    concepts: Sequence[str]
    target: str
    draws: int = 1000

    @property
    def judged(self) -> bool:
        """Whether an outside judge saw the pictures, and can compare them with the target."""
        return f"judge.{self.target}" in self.subjects[0]

    def scores(self, parts: Parts, side: Side = "made") -> Float[Tensor, "S P N"]:
        """Similarities of decoded pictures with the target, seed by seed."""
        made = stacked(parts, side).transpose(0, 1)
        return cosine_similarity(made, self._compare(side)[:, None])

    def asked_scores(self) -> Float[Tensor, "P N"]:
        """The same of the embeddings that were asked for."""
        return cosine_similarity(stacked(self.subjects, "asked"), self._compare("made")[:, None])

    def _compare(self, side: Side) -> Float[Tensor, "P E"]:
        if side == "judge":
            return stacked(self.subjects, f"judge.{self.target}")
        return stacked(self.subjects, "clean" if self.target == INPUT else self.target)

    def fidelity(self, parts: Parts) -> Float[Tensor, "P N"]:
        """Cosine of decoded pictures with what was asked for, mean over seeds."""
        return cosine_similarity(stacked(parts, "made"), stacked(self.subjects, "asked")[:, None]).mean(dim=1)


@dataclass(frozen=True)
class Seen:
    """How a setting's pictures look to one encoder.

    Attributes:
        rank_correlation: of the ranking of heads by one seed with the reference's, mean over seeds and pictures.
        share: of the ceiling.
        agreement: mean pairwise cosine of the pictures of different seeds.
        unrelated: the same of pictures of different inputs, by the same head: what nothing in common looks like.
    """

    rank_correlation: Estimate
    share: Estimate
    agreement: Estimate
    unrelated: float


@dataclass(frozen=True)
class SettingRow:
    """One setting of the sweep.

    Attributes:
        name: the setting in words.
        axis: the option in which it differs from the default; `default`, or `reference`.
        steps: denoising steps.
        passes: of the network for one picture.
        fidelity: mean cosine of decoded pictures with what was asked for.
        seen: by the encoder itself.
        judged: by the outside judge, or None.
    """

    name: str
    axis: str
    steps: int
    passes: int
    fidelity: Estimate
    seen: Seen
    judged: Seen | None


@dataclass(frozen=True)
class DecoderSummary:
    """Everything that the decoder study reports.

    Attributes:
        n_pictures: P.
        n_concepts: concepts among them.
        n_heads: heads of the model.
        n_decoded: N, heads of each picture whose pictures were decoded.
        seeds: of the decoder, at every setting.
        reference_seeds: of the reference.
        strength: how hard heads were steered.
        target: what pictures are compared with.
        reference: the reference; its correlation is the ceiling.
        seed_to_seed: rank correlation of two of its seeds, and the reliability of the mean of all (Spearman-Brown).
        asked: the ranking without decoding, against the mean of all seeds of the reference.
        asked_ceiling: what a ranking without noise could reach there: the root of that mean's reliability.
        asked_share: the first as a share of the second.
        rows: the settings, the default one first.
        wanted: the share of the ceiling that is enough.
        reaching: settings whose share reaches it as a point estimate, the cheapest first.
        certain: those of them whose interval's lower end reaches it as well.
        cheapest_steps: the fewest steps, all else as in the default, that reach it as a point estimate; None if none.
        certain_steps: the fewest whose interval's lower end reaches it as well; None if none do.
        invented: 1 - agreement over seeds at the default setting: what of a picture the decoder invents.
        judge: the outside judge, or None.
        command: what was run, if it was a command.
    """

    n_pictures: int
    n_concepts: int
    n_heads: int
    n_decoded: int
    seeds: tuple[int, ...]
    reference_seeds: tuple[int, ...]
    strength: str
    target: str
    reference: SettingRow
    seed_to_seed: tuple[float, float]
    asked: Estimate
    asked_ceiling: Estimate
    asked_share: Estimate
    rows: tuple[SettingRow, ...]
    wanted: float
    reaching: tuple[str, ...]
    certain: tuple[str, ...]
    cheapest_steps: int | None
    certain_steps: int | None
    invented: Estimate
    judge: JudgeName | None = None
    command: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


Statistic = Callable[[Tensor, Tensor], Tensor]
"""Of drawn pictures and heads, as `two_way_bootstrap` takes it."""


def left_out(reference: Float[Tensor, "R P N"]) -> Float[Tensor, "R P N"]:
    """The mean over all seeds but one, each left out in turn."""
    return (reference.sum(dim=0) - reference) / (len(reference) - 1)


def ranking_statistic(scores: Float[Tensor, "S P N"], reference: Float[Tensor, "R P N"]) -> Statistic:
    """Mean rank correlation of each seed's scores with the reference, each of whose seeds is left out in turn."""
    rest = left_out(reference)

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        sides = take(scores, pictures, columns)[:, None], take(rest, pictures, columns)[None]
        return spearman(*sides).nanmean(dim=(0, 1, 3))

    return statistic


def ceiling_statistic(reference: Float[Tensor, "R P N"]) -> Statistic:
    """Mean rank correlation of each seed of the reference with the mean of its others."""
    rest = left_out(reference)

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        return spearman(take(reference, pictures, columns), take(rest, pictures, columns)).nanmean(dim=(0, 2))

    return statistic


def noiseless_statistic(scores: Float[Tensor, "P N"], reference: Float[Tensor, "R P N"]) -> Statistic:
    """Mean rank correlation of scores without seeds with the mean over all seeds of the reference."""
    whole = reference.mean(dim=0)

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        return of_draws(spearman, scores, whole, pictures, columns).nanmean(dim=-1)

    return statistic


def noiseless_ceiling(reference: Float[Tensor, "R P N"]) -> Statistic:
    """What the former comes to for a ranking that knows all but the seeds' noise.

        sqrt( R r / (1 + (R - 1) r) )        r: mean rank correlation of two seeds (Spearman-Brown)

    nan where two seeds agree by no more than chance.
    """
    R = len(reference)

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        seeds = take(reference, pictures, columns)
        pairs = [spearman(seeds[i], seeds[j]).nanmean(dim=-1) for i in range(R) for j in range(i)]
        single = torch.stack(pairs).mean(dim=0)
        return (R * single / (1 + (R - 1) * single)).where(single > 0, torch.nan).sqrt()

    return statistic


def agreements(made: Float[Tensor, "S P N E"]) -> Float[Tensor, "P N"]:
    """Mean pairwise cosine of the pictures of different seeds."""
    unit = torch.nn.functional.normalize(made.double(), dim=-1)
    S = len(unit)
    return (unit.sum(dim=0).square().sum(dim=-1) - S) / (S * (S - 1))


def unrelated(made: Float[Tensor, "S P N E"]) -> float:
    """Mean cosine of pictures of different inputs by the same head, over all their seeds; nan for one input."""
    each = torch.nn.functional.normalize(made.double(), dim=-1).mean(dim=0)
    P = len(each)
    if P < 2:
        return float("nan")
    together = each.sum(dim=0).square().sum(dim=-1) - each.square().sum(dim=-1).sum(dim=0)
    return float(together.mean() / (P * (P - 1)))


def summarise(
    found: Decodings,
    options: DecoderOptions,
    n_heads: int,
    wanted: float,
    *,
    judge: JudgeName | None = None,
    command: str = "",
) -> DecoderSummary:
    """Everything that the study reports.

    Args:
        found: the measurements.
        options: what was measured.
        n_heads: heads of the model.
        wanted: the share of the ceiling that is enough.
        judge: the outside judge, if there was one.
        command: what was run.

    Raises:
        StoreError: if the measurements are not those of the options.
    """
    if len(found.settings) != len(options.settings):
        raise StoreError("the parts of this study are not those of its settings.")
    default = options.default
    rows = tuple(
        _row(found, parts, setting, axis_of(setting, default))
        for parts, setting in zip(found.settings, options.settings, strict=True)
    )
    reference = found.scores(found.reference)
    # A ceiling of nothing, or less, is no bar to reach.
    high = float(ceiling_statistic(reference)(*_all(reference))[0]) > 0
    enough = [row for row in rows if high and row.seen.share.value >= wanted]
    certain = [row for row in enough if row.seen.share.low >= wanted]
    asked, ceiling = noiseless_statistic(found.asked_scores(), reference), noiseless_ceiling(reference)
    agreement = rows[0].seen.agreement
    return DecoderSummary(
        n_pictures=len(found.subjects),
        n_concepts=len(set(found.concepts)),
        n_heads=n_heads,
        n_decoded=reference.shape[-1],
        seeds=options.seeds,
        reference_seeds=options.work()[0][2],
        strength=str(options.strength),
        target=found.target,
        reference=_row(found, found.reference, options.reference, "reference"),
        seed_to_seed=seed_reliability(reference),
        asked=_estimate(found, asked),
        asked_ceiling=_estimate(found, ceiling),
        asked_share=_share(found, asked, ceiling),
        rows=rows,
        wanted=wanted,
        reaching=_cheapest_first(enough),
        certain=_cheapest_first(certain),
        cheapest_steps=_fewest_steps(enough),
        certain_steps=_fewest_steps(certain),
        invented=Estimate(1 - agreement.value, 1 - agreement.high, 1 - agreement.low),
        judge=judge,
        command=command,
    )


def _cheapest_first(rows: Sequence[SettingRow]) -> tuple[str, ...]:
    return tuple(row.name for row in sorted(rows, key=lambda row: row.passes))


def _fewest_steps(rows: Sequence[SettingRow]) -> int | None:
    return min((row.steps for row in rows if row.axis in ("default", "steps")), default=None)


def _row(found: Decodings, parts: Parts, options: DecodeOptions, axis: str) -> SettingRow:
    return SettingRow(
        name=setting_name(options),
        axis=axis,
        steps=options.steps,
        passes=options.passes,
        fidelity=mean_estimate(found.fidelity(parts), found.concepts, draws=found.draws),
        seen=_seen(found, parts, "made"),
        judged=_seen(found, parts, "judge") if found.judged else None,
    )


def _seen(found: Decodings, parts: Parts, side: Side) -> Seen:
    reference = found.scores(found.reference, side)
    own = parts is found.reference
    statistic = ceiling_statistic(reference) if own else ranking_statistic(found.scores(parts, side), reference)
    made = stacked(parts, side).transpose(0, 1)
    return Seen(
        rank_correlation=_estimate(found, statistic),
        share=_share(found, statistic, ceiling_statistic(reference)),
        agreement=mean_estimate(agreements(made), found.concepts, draws=found.draws),
        unrelated=unrelated(made),
    )


def _estimate(found: Decodings, statistic: Statistic) -> Estimate:
    n_heads = stacked(found.subjects, "asked").shape[1]
    return two_way_bootstrap(statistic, found.concepts, n_heads, draws=found.draws)


def _share(found: Decodings, statistic: Statistic, ceiling: Statistic) -> Estimate:
    return _estimate(found, lambda pictures, columns: statistic(pictures, columns) / ceiling(pictures, columns))


def _all(table: Float[Tensor, "S P N"]) -> tuple[Tensor, Tensor]:
    return torch.arange(table.shape[1])[None], torch.arange(table.shape[2])[None]


def timings(found: Decodings, options: DecoderOptions) -> dict[str, dict[str, float]]:
    """Seconds to decode and embed one picture at each setting, median over inputs; no part of a summary."""
    rows = {"reference": (found.reference, options.reference)}
    rows |= {
        setting_name(setting): (parts, setting) for parts, setting in zip(found.settings, options.settings, strict=True)
    }
    return {
        name: {"passes": setting.passes, "seconds": float(stacked(parts, "seconds").median())}
        for name, (parts, setting) in rows.items()
    }


def table_rows(
    found: Decodings, options: DecoderOptions, pictures: Sequence[tuple[str, str]], heads: Sequence[Site]
) -> list[dict[str, Any]]:
    """One row a setting, picture and head: similarity with the target, mean over seeds, agreement and fidelity.

    Args:
        found: the measurements.
        options: what was measured.
        pictures: id and concept of each.
        heads: whose pictures were decoded.
    """
    named: list[tuple[str, Parts]] = [("reference", found.reference)]
    named += [(setting_name(one), parts) for one, parts in zip(options.settings, found.settings, strict=True)]
    asked = found.asked_scores()
    rows: list[dict[str, Any]] = []
    for name, parts in named:
        tables: Mapping[str, Tensor] = {
            f"similarity with {found.target}": found.scores(parts).mean(dim=0),
            f"similarity with {found.target}, not decoded": asked,
            "agreement over seeds": agreements(stacked(parts, "made").transpose(0, 1)),
            "fidelity": found.fidelity(parts),
        }
        rows += [
            {"setting": name, "picture": id, "concept": concept, "site": str(site)}
            | {column: float(table[row, place]) for column, table in tables.items()}
            for row, (id, concept) in enumerate(pictures)
            for place, site in enumerate(heads)
        ]
    return rows
