"""Scores of candidate lenses towards every name, and their correlations with the effects of ablation.

For a head of a picture, and a name with direction t:

    one picture     cos(d(e+), t)                         d(e): the decoded picture, embedded again
    contrast pair   cos(d(e+), t) - cos(d(e-), t)
    real pictures   mean cos(b, t) over the k pictures b nearest to e+, minus the same for 2 e - e+
    effect          cos(e, t) - cos(e', t)                e': the embedding after the head's ablation

A correlation is taken over the heads of a picture, for each name, and averaged over names.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import StoreError
from steerlens.sites import Site
from steerlens.studies.lenses.bank import Bank, Names
from steerlens.studies.lenses.measure import CLEAN, step_name
from steerlens.studies.lenses.options import CONTRAST, PICTURE, RETRIEVAL, CandidateLens
from steerlens.studies.shared.ablation import Ablation
from steerlens.studies.shared.measurements import PicturePart, PictureTables
from steerlens.studies.shared.neighbours import nearest, opposite
from steerlens.studies.shared.stats import spearman
from steerlens.studies.shared.transfer import transfer

View = Literal["decoded", "requested", "judged"]
"""Embeddings that are scored: of decoded or real pictures, requested from the decoder, or of pictures by the judge."""


@dataclass(frozen=True, eq=False)
class NamedScores:
    """Measurements of P pictures, the bank and the names; methods raise `StoreError` if a part lacks its tensor.

    Attributes:
        tables: measurements of the pictures.
        concepts: concept of each picture.
        sites: all heads.
        columns: indices of the n studied heads.
        names: the T names.
        bank: real pictures, or None.
        ablation: replacement of a head's write.
        draws: bootstrap draws of intervals.
    """

    tables: PictureTables
    concepts: Sequence[str]
    sites: Sequence[Site]
    columns: Sequence[int]
    names: Names
    bank: Bank | None
    ablation: Ablation
    draws: int = 1000

    @property
    def decodes(self) -> bool:
        """False of a study of requested embeddings alone."""
        return any(part.decoded for part in self.tables.parts)

    @property
    def main(self) -> View:
        """Embeddings by which lenses are chosen and compared: of decoded pictures, if there are any."""
        return "decoded" if self.decodes else "requested"

    def effect(self, part: PicturePart) -> Float[Tensor, "n T"]:
        """Signed total effect of each head towards each name."""
        if self.ablation not in part.total:
            raise StoreError(f"a part of this study lacks the effects of {self.ablation} ablation.")
        ablated = part.total[self.ablation][list(self.columns)]
        return similarities(part.clean[None], self.names.directions) - similarities(ablated, self.names.directions)

    def score(self, lens: CandidateLens, part: PicturePart, view: View) -> Float[Tensor, "n T"]:
        """Score of each head towards each name, mean over seeds; for the judge, towards the names that it knows."""
        if lens.kind == RETRIEVAL:
            return self._retrieved(lens, part, view)
        sides = [self._seen(str(setting), part, view) for setting in lens.requested]
        return sides[0] - sides[1] if lens.kind == CONTRAST else sides[0]

    def gains(self, lens: CandidateLens, part: PicturePart) -> Float[Tensor, "n T"]:
        """Names that each head's picture gains: its score, for one picture beyond that of the unsteered picture."""
        score = self.score(lens, part, self.main)
        return score - self._seen(CLEAN, part, self.main) if lens.kind == PICTURE else score

    def correlations(self, lens: CandidateLens, view: View = "decoded") -> Float[Tensor, "P"]:
        """Spearman correlation over heads with the effects, mean over names, of each picture."""
        sides = [self.sides(self.score(lens, part, view), part, view) for part in self.tables.parts]
        return torch.stack([spearman(score, effect).nanmean() for score, effect in sides])

    @property
    def sampled(self) -> bool:
        """True if the studied heads are a sample of the encoder's."""
        return len(self.columns) < len(self.sites)

    @property
    def layers(self) -> list[int]:
        """Layer of each studied head."""
        return [self.sites[column].layer for column in self.columns]

    @property
    def norm(self) -> Float[Tensor, "P n"]:
        """Norms of the heads' writes."""
        return self.tables.norm[:, list(self.columns)]

    @property
    def layer(self) -> Float[Tensor, "P n"]:
        """Layers of the heads."""
        return torch.tensor(self.layers, dtype=torch.float32).expand(len(self.tables), -1)

    def by_head(self, lens: CandidateLens) -> Float[Tensor, "P n"]:
        """Spearman correlation over names, for each head: are the gained names those that ablation loses?"""
        return torch.stack([spearman(self.gains(lens, part), self.effect(part)) for part in self.tables.parts])

    def transfer_to_heads(self, lens: CandidateLens) -> Float[Tensor, "P n"]:
        """Transfer of the change that a decoded lens requests, mean over seeds."""
        rows: list[Tensor] = []
        for part in self.tables.parts:
            after = part.requested[str(lens.towards)][list(self.columns)]
            away = lens.kind == CONTRAST
            before = part.requested[str(lens.away)][list(self.columns)] if away else part.clean[None]
            sides = [(str(lens.away) if away else CLEAN), str(lens.towards)]
            views = [[part.decoded[side, seed] for side in sides] for seed in self._seeds(sides[1], part)]
            rows.append(torch.stack([transfer(before, after, *both) for both in views]).mean(dim=0))
        return torch.stack(rows)

    def sizes_of_changes(self, lens: CandidateLens) -> Float[Tensor, "P n"]:
        """Norm of the change that a lens requests, from the unsteered embedding."""
        return torch.stack(
            [
                (part.requested[str(lens.towards)][list(self.columns)] - part.clean).norm(dim=-1)
                for part in self.tables.parts
            ]
        )

    def transfer_of_step(self, step: float) -> tuple[Float[Tensor, "P 1"], Float[Tensor, "P 1"]]:
        """Transfer of a step towards another scene, mean over seeds; and the norm of the step."""
        name = step_name(step)
        values: list[Tensor] = []
        sizes: list[Tensor] = []
        for part in self.tables.parts:
            before, after = part.clean[None], part.requested[name]
            views = [(part.decoded[CLEAN, seed], part.decoded[name, seed]) for seed in self._seeds(name, part)]
            values.append(torch.stack([transfer(before, after, *both) for both in views]).mean(dim=0))
            sizes.append((after - before).norm(dim=-1))
        return torch.stack(values), torch.stack(sizes)

    def sides(
        self, score: Float[Tensor, "n T"], part: PicturePart, view: View
    ) -> tuple[Float[Tensor, "T n"], Float[Tensor, "T n"]]:
        """A score and the effects that it should predict, by name; for the judge, of the names that it knows."""
        effect = self.effect(part)
        if view == "judged":
            effect = effect[:, list(self.names.judged_places)]
        return score.T, effect.T

    def _retrieved(self, lens: CandidateLens, part: PicturePart, view: View) -> Float[Tensor, "n T"]:
        if self.bank is None:
            raise StoreError("real pictures cannot be scored without a bank.")
        changed = part.requested[str(lens.towards)][list(self.columns)]
        rows, names = self.bank.embeddings, self.names.directions
        if view == "judged":
            if self.bank.judged is None or self.names.judged is None:
                raise StoreError("the bank of this study was not embedded by a judge.")
            rows, names = self.bank.judged, self.names.judged
        similar = similarities(rows, names)
        gained, lost = (
            torch.stack([similar[places].mean(dim=0) for places in nearest(side, self.bank.embeddings, lens.k)])
            for side in (changed, opposite(part.clean, changed))
        )
        return gained - lost

    def _seen(self, setting: str, part: PicturePart, view: View) -> Float[Tensor, "n T"]:
        if view == "requested":
            if setting == CLEAN:
                return similarities(part.clean[None], self.names.directions)
            rows = part.requested.get(setting)
            if rows is None:
                raise StoreError(f"a part of this study lacks the embeddings of {setting!r}.")
            return similarities(rows[list(self.columns)], self.names.directions)
        views = part.views("judge" if view == "judged" else "encoder")
        names = self.names.judged if view == "judged" else self.names.directions
        if names is None:
            raise StoreError("no judge has embedded the pictures of this study.")
        seeds = self._seeds(setting, part)
        return torch.stack([similarities(views[setting, seed], names) for seed in seeds]).mean(dim=0)

    def _seeds(self, setting: str, part: PicturePart) -> list[int]:
        seeds = sorted(seed for name, seed in part.decoded if name == setting)
        if not seeds:
            raise StoreError(f"a part of this study lacks decoded pictures of {setting!r}.")
        return seeds


def similarities(rows: Float[Tensor, "n E"], directions: Float[Tensor, "T E"]) -> Float[Tensor, "n T"]:
    """Cosines of embeddings with directions of unit norm."""
    return torch.nn.functional.normalize(rows.float(), dim=-1) @ directions.T


def table_rows(
    scores: NamedScores, lenses: Sequence[CandidateLens], pictures: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Rows of the study's table, one per picture and head.

    Args:
        scores: the measurements.
        lenses: the chosen lenses.
        pictures: id and concept of each picture.
    """
    columns: dict[str, Tensor] = {"norm of the write": scores.norm}
    for lens in lenses:
        columns[f"correlation over names: {lens}"] = scores.by_head(lens)
        if scores.decodes and lens.kind != RETRIEVAL:
            columns[f"transfer: {lens}"] = scores.transfer_to_heads(lens)
    return [
        {
            "picture": id,
            "concept": concept,
            "site": str(scores.sites[site]),
            "layer": scores.sites[site].layer,
            "head": scores.sites[site].head,
        }
        | {name: float(table[row, column]) for name, table in columns.items()}
        for row, (id, concept) in enumerate(pictures)
        for column, site in enumerate(scores.columns)
    ]
