"""Contests of the identification study: is the own write closer to the input than the same head's write elsewhere?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.studies.identification.measure import (
    DIFFUSION,
    FOIL,
    NEUTRAL,
    OWN,
    RANDOM,
    IdentificationPart,
    RandomPart,
)
from steerlens.studies.shared.measurements import View, stacked
from steerlens.studies.shared.targets import INPUT, OTHER

STEERING, STEERING_NEUTRAL = "steering", "steering, neutral base"
LENSES = (STEERING, STEERING_NEUTRAL, DIFFUSION)
"""The compared lenses: steered from the input's own residual, from the mean residual, and the write alone."""

_KINDS = {STEERING_NEUTRAL: NEUTRAL, DIFFUSION: DIFFUSION}


@dataclass(frozen=True, eq=False)
class Contest:
    """Similarities with a picture of what came from its own write, and of what came from other pictures' writes.

    Attributes:
        own: similarity of the own, by picture and head.
        foils: similarity of each of F foils.
        counts: foils that count: those of pictures of another concept.
        all_pairs: True if foil j came from picture j of the study.
    """

    own: Float[Tensor, "P n"]
    foils: Float[Tensor, "P F n"]
    counts: Bool[Tensor, "P F"]
    all_pairs: bool = False

    @property
    def won(self) -> Float[Tensor, "P F n"]:
        """1 where the own is closer than a foil, 0.5 for ties, else 0."""
        return wins(self.own[:, None], self.foils)

    @property
    def candidates(self) -> float:
        """Mean number of candidates N, the own included."""
        return 1 + float(self.counts.double().sum(dim=1).mean())

    def share(self) -> Float[Tensor, "P n"]:
        """Share of foils to which the own is closer; ties count half."""
        counts = self.counts[..., None].double()
        return (self.won * counts).sum(dim=1) / counts.sum(dim=1)

    def rank(self) -> Float[Tensor, "P n"]:
        """Rank of the own among the candidates, from 1; ties share the mean of their ranks."""
        lost = (1 - self.won) * self.counts[..., None]
        return 1 + lost.sum(dim=1)

    def first(self) -> Float[Tensor, "P n"]:
        """1 where the own is closest of all candidates; with ties, its share of them."""
        counts = self.counts[..., None]
        beaten = ((self.foils > self.own[:, None]) & counts).any(dim=1)
        ties = ((self.foils == self.own[:, None]) & counts).sum(dim=1)
        return (~beaten).double() / (1 + ties)


def wins(first: Tensor, second: Tensor) -> Tensor:
    """1 where the first is larger, 0.5 where both are equal, else 0."""
    return (first > second).double() + 0.5 * (first == second).double()


@dataclass(frozen=True, eq=False)
class Identified:
    """Measurements of all pictures; methods raise `StoreError` if a part lacks its tensor.

    Attributes:
        parts: measurements of the P pictures.
        random: random directions under the Diffusion Lens.
        concepts: concept of each picture.
        foils: indices of the pictures whose writes were decoded for each picture.
        sites: the n studied heads.
        draws: bootstrap draws of intervals.
    """

    parts: Sequence[IdentificationPart]
    random: RandomPart
    concepts: Sequence[str]
    foils: Sequence[Sequence[int]]
    sites: Sequence[Site]
    draws: int = 1000

    @property
    def compared(self) -> tuple[str, ...]:
        """Pictures with which similarities are taken: the input, and another of its concept if all have one."""
        return (INPUT, OTHER) if all(OTHER in part.similarities for part in self.parts) else (INPUT,)

    @property
    def views(self) -> tuple[View, ...]:
        """Kinds of embeddings that can be compared."""
        if not all(part.decoded for part in self.parts):
            return ("requested",)
        judged = all(INPUT in part.judged_targets for part in self.parts)
        return ("decoded", "requested", "judged") if judged else ("decoded", "requested")

    def contest(self, lens: str, view: View, compare: str) -> Contest:
        """The own write against other pictures' writes.

        Without decoding, and for lenses that do not see the input's residual, every picture of another concept is a
        foil; steered from the own residual and decoded, only the pictures that `foils` lists.
        """
        if lens == STEERING and view != "requested":
            names = [f"{FOIL}{number}" for number in range(len(self.foils[0]))]
            foils = torch.stack([self._own(name, view, compare) for name in names], dim=1)
            return Contest(self._own(OWN, view, compare), foils, torch.ones(foils.shape[:2], dtype=torch.bool))
        if lens == STEERING:
            matrix = stacked([part.similarities.get(compare) for part in self.parts], f"similarities with {compare}")
        else:
            rows = self._embeddings(_KINDS[lens], view)
            targets = self._targets(view, compare)
            matrix = torch.stack([cosine_similarity(rows, target).mean(dim=0) for target in targets])
        differ = torch.tensor([[first != second for second in self.concepts] for first in self.concepts])
        return Contest(matrix.diagonal().T, matrix, differ, all_pairs=True)

    def control(self, lens: str, view: View, compare: str) -> Float[Tensor, "P n"] | None:
        """Similarity of the random direction, steered as strongly; None for a neutral base, which has no control."""
        if lens == STEERING:
            return self._own(RANDOM, view, compare)
        if lens == STEERING_NEUTRAL:
            return None
        if view == "requested":
            rows = self.random.requested[None]
        else:
            views = self.random.judged if view == "judged" else self.random.decoded
            rows = torch.stack([views[seed] for seed in sorted(views)])
        return torch.stack([cosine_similarity(rows, target).mean(dim=0) for target in self._targets(view, compare)])

    @property
    def layers(self) -> list[int]:
        """Layer of each studied head."""
        return [site.layer for site in self.sites]

    def fidelity(self) -> Float[Tensor, "P n"]:
        """Cosine of the own decoded picture's embedding with the requested one, mean over seeds."""
        return cosine_similarity(self._embeddings(OWN, "decoded"), self._embeddings(OWN, "requested")).mean(dim=0)

    def _own(self, kind: str, view: View, compare: str) -> Float[Tensor, "P n"]:
        targets = self._targets(view, compare)
        return cosine_similarity(self._embeddings(kind, view), targets[:, None]).mean(dim=0)

    def _targets(self, view: View, compare: str) -> Float[Tensor, "P E"]:
        if view == "judged":
            return stacked([part.judged_targets.get(compare) for part in self.parts], f"{compare} by the judge")
        return stacked([part.clean if compare == INPUT else part.other for part in self.parts], compare)

    def _embeddings(self, kind: str, view: View) -> Float[Tensor, "S P n E"]:
        if view == "requested":
            return stacked([part.requested.get(kind) for part in self.parts], f"embeddings of {kind}")[None]
        views = [part.judged if view == "judged" else part.decoded for part in self.parts]
        seeds = sorted(seed for name, seed in views[0] if name == kind)
        return torch.stack([stacked([own.get((kind, seed)) for own in views], f"pictures of {kind}") for seed in seeds])


def table_rows(identified: Identified, pictures: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Rows of the study's table, one per picture and head: shares of foils to which the own is closer.

    Args:
        identified: the measurements.
        pictures: id and concept of each picture.
    """
    columns = {
        f"{lens}, {view}, {compare}": identified.contest(lens, view, compare).share()
        for lens in LENSES
        for view in identified.views
        for compare in identified.compared
    }
    return [
        {"picture": id, "concept": concept, "site": str(site), "layer": site.layer, "head": site.head}
        | {name: float(table[row, column]) for name, table in columns.items()}
        for row, (id, concept) in enumerate(pictures)
        for column, site in enumerate(identified.sites)
    ]
