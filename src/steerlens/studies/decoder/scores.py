"""Scores of the decoder study, as tables (S,P,N) over seeds, pictures and heads, and the statistics of rankings.

A setting is assessed by the agreement of its seeds' rankings of heads with the reference's ranking. The ceiling is the
agreement of each reference seed with the mean over the reference's other seeds; a setting's seeds are therefore
compared with the same means, each reference seed left out in turn. A ranking without decoding has no seed noise, so its
ceiling differs: the root of the reliability of the reference's mean, which a ranking without any noise could reach.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.scores import cosine_similarity
from steerlens.studies.decoder.measure import SettingPart, SubjectPart
from steerlens.studies.shared.measurements import Viewer, stacked
from steerlens.studies.shared.partial import LAYER, NORM
from steerlens.studies.shared.stats import of_draws, spearman, take
from steerlens.studies.shared.targets import INPUT

Statistic = Callable[[Tensor, Tensor], Tensor]
"""Statistic of drawn pictures and heads; see `two_way_bootstrap`."""


@dataclass(frozen=True, eq=False)
class Decodings:
    """Measurements of all pictures at all settings.

    Its tables raise `StoreError` if a part lacks a tensor.

    Attributes:
        subjects: one part per picture.
        reference: parts of the reference.
        settings: parts of each setting, in the order of the options.
        concepts: concept of each picture.
        target: target with which pictures are compared.
        draws: bootstrap draws of intervals.
    """

    subjects: Sequence[SubjectPart]
    reference: Sequence[SettingPart]
    settings: Sequence[Sequence[SettingPart]]
    concepts: Sequence[str]
    target: str
    draws: int = 1000

    @property
    def judged(self) -> bool:
        """True if an outside judge embedded the pictures and the target."""
        return all(self.target in part.judged_targets for part in self.subjects)

    @property
    def requested(self) -> Float[Tensor, "P N E"]:
        """Requested embeddings."""
        return stacked([part.requested for part in self.subjects], "requested embeddings")

    def baselines(self) -> dict[str, Float[Tensor, "P N"]]:
        """Norms of the writes and layers of the heads, which need no lens; empty if a part lacks them."""
        families = {NORM: [part.norm for part in self.subjects], LAYER: [part.layer for part in self.subjects]}
        return {
            name: torch.stack([own for own in tables if own is not None])
            for name, tables in families.items()
            if all(own is not None for own in tables)
        }

    def requested_scores(self) -> Float[Tensor, "P N"]:
        """Similarities of requested embeddings with the target."""
        return cosine_similarity(self.requested, self._compared("encoder")[:, None])

    def scores(self, parts: Sequence[SettingPart], viewer: Viewer = "encoder") -> Float[Tensor, "S P N"]:
        """Similarities of decoded pictures with the target, by seed."""
        return cosine_similarity(decoded(parts, viewer), self._compared(viewer)[:, None])

    def fidelity(self, parts: Sequence[SettingPart]) -> Float[Tensor, "P N"]:
        """Cosine of decoded pictures with requested embeddings, mean over seeds."""
        pictures = stacked([part.decoded for part in parts], "decoded pictures")
        return cosine_similarity(pictures, self.requested[:, None]).mean(dim=1)

    def _compared(self, viewer: Viewer) -> Float[Tensor, "P E"]:
        if viewer == "judge":
            rows = [part.judged_targets.get(self.target) for part in self.subjects]
            return stacked(rows, f"{self.target} as the judge sees it")
        if self.target == INPUT:
            return stacked([part.clean for part in self.subjects], "clean embeddings")
        return stacked([part.targets.get(self.target) for part in self.subjects], f"target {self.target}")


def decoded(parts: Sequence[SettingPart], viewer: Viewer = "encoder") -> Float[Tensor, "S P N E"]:
    """Decoded pictures of a setting, embedded again by one of the encoders.

    Raises:
        StoreError: if a part lacks them.
    """
    rows = [part.judged if viewer == "judge" else part.decoded for part in parts]
    return stacked(rows, f"pictures as the {viewer} sees them").transpose(0, 1)


def left_out(reference: Float[Tensor, "R P N"]) -> Float[Tensor, "R P N"]:
    """Mean over all other seeds, for each seed."""
    return (reference.sum(dim=0) - reference) / (len(reference) - 1)


def ranking_statistic(scores: Float[Tensor, "S P N"], reference: Float[Tensor, "R P N"]) -> Statistic:
    """Mean rank correlation of each seed's scores with the reference, leaving out each reference seed in turn."""
    rest = left_out(reference)

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        sides = take(scores, pictures, columns)[:, None], take(rest, pictures, columns)[None]
        return spearman(*sides).nanmean(dim=(0, 1, 3))

    return statistic


def ceiling_statistic(reference: Float[Tensor, "R P N"]) -> Statistic:
    """Mean rank correlation of each reference seed with the mean over the other reference seeds."""
    rest = left_out(reference)

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        return spearman(take(reference, pictures, columns), take(rest, pictures, columns)).nanmean(dim=(0, 2))

    return statistic


def noiseless_statistic(scores: Float[Tensor, "P N"], reference: Float[Tensor, "R P N"]) -> Statistic:
    """Mean rank correlation of scores without seeds with the mean over all reference seeds."""
    whole = reference.mean(dim=0)

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        return of_draws(spearman, scores, whole, pictures, columns).nanmean(dim=-1)

    return statistic


def noiseless_ceiling(reference: Float[Tensor, "R P N"]) -> Statistic:
    """Limit of `noiseless_statistic` for a perfect ranking, which lacks only the seeds' noise.

        sqrt( R r / (1 + (R - 1) r) )        r: mean rank correlation of two seeds (Spearman-Brown)

    nan if two seeds agree no better than by chance.
    """
    R = len(reference)

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        seeds = take(reference, pictures, columns)
        pairs = [spearman(seeds[i], seeds[j]).nanmean(dim=-1) for i in range(R) for j in range(i)]
        single = torch.stack(pairs).mean(dim=0)
        return (R * single / (1 + (R - 1) * single)).where(single > 0, torch.nan).sqrt()

    return statistic


def agreements(decoded: Float[Tensor, "S P N E"]) -> Float[Tensor, "P N"]:
    """Mean pairwise cosine of the pictures of different seeds."""
    unit = torch.nn.functional.normalize(decoded.double(), dim=-1)
    S = len(unit)
    return (unit.sum(dim=0).square().sum(dim=-1) - S) / (S * (S - 1))


def unrelated(decoded: Float[Tensor, "S P N E"]) -> float:
    """Mean cosine of pictures of different inputs by the same head, over all their seeds; nan for one input."""
    each = torch.nn.functional.normalize(decoded.double(), dim=-1).mean(dim=0)
    P = len(each)
    if P < 2:
        return float("nan")
    together = each.sum(dim=0).square().sum(dim=-1) - each.square().sum(dim=-1).sum(dim=0)
    return float(together.mean() / (P * (P - 1)))
