"""What the strength study stored, as tables over pictures and heads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.lenses.strength import Strength
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.studies.shared.notions import INPUT, Effect, Parts, stacked
from steerlens.studies.shared.scores import asked_score, made_scores
from steerlens.studies.shared.typicality import Typicality
from steerlens.studies.strength.measure import CLEAN

DECODED, ASKED, ASKED_SAME, JUDGED = "decoded", "not decoded", "not decoded, the decoded heads", "decoded, judged"
"""What a score is of: pictures, embeddings asked for (all heads; those decoded), pictures as the judge sees them."""


@dataclass(frozen=True, eq=False)
class Half:
    """What one half of the concepts was measured to be.

    Its tables raise StoreError where a part lacks what the others hold.

    Attributes:
        parts: of its pictures.
        concepts: of those pictures.
        columns: places of the heads whose pictures were decoded.
        main: the signed total effect.
        typicality: the real embeddings held apart.
        draws: bootstrap draws of intervals.
    """

    parts: Parts
    concepts: Sequence[str]
    columns: Sequence[int]
    main: Effect
    typicality: Typicality
    draws: int = 500

    def effects(self) -> dict[str, Float[Tensor, "P N"]]:
        """The signed and the unsigned total effect of every head."""
        unsigned = Effect(self.main.scope, "", self.main.ablation)
        return {str(effect): effect.table(self.parts) for effect in (self.main, unsigned)}

    def scores(self, strength: Strength, compare: str) -> dict[str, tuple[Float[Tensor, "P n"], Sequence[int]]]:
        """Similarities with the input or a target, and the heads that they are of."""
        asked = asked_score(self.parts, str(strength), compare)
        everyone = range(asked.shape[1])
        found: dict[str, tuple[Tensor, Sequence[int]]] = {
            DECODED: (made_scores(self.parts, str(strength), compare).mean(dim=0), self.columns),
            ASKED: (asked, everyone),
        }
        if len(self.columns) < len(everyone):
            found[ASKED_SAME] = asked[:, list(self.columns)], self.columns
        if f"judge.{compare}" in self.parts[0]:
            judged = made_scores(self.parts, str(strength), compare, judge=True).mean(dim=0)
            found[JUDGED] = judged, self.columns
        return found

    def fidelity(self, strength: Strength) -> Float[Tensor, "P n"]:
        """Cosine of each decoded picture's embedding with the one asked for, mean over seeds."""
        asked = stacked(self.parts, f"asked.{strength}")[:, list(self.columns)]
        return self._fidelity(str(strength), asked)

    def clean_fidelity(self) -> Float[Tensor, "P 1"]:
        """The same of the unsteered embedding."""
        return self._fidelity(CLEAN, stacked(self.parts, "clean")[:, None])

    def _fidelity(self, name: str, asked: Float[Tensor, "P n E"]) -> Float[Tensor, "P n"]:
        seeds = [key for key in self.parts[0] if key.startswith(f"made.{name}.seed")]
        return torch.stack([cosine_similarity(stacked(self.parts, key), asked) for key in seeds]).mean(dim=0)

    def percentiles(self, name: str) -> dict[str, Float[Tensor, "P n"]]:
        """Typicality of the steered embeddings of a strength, or of the clean ones, by kind of distance."""
        embeddings = stacked(self.parts, "clean")[:, None] if name == CLEAN else stacked(self.parts, f"asked.{name}")
        kinds = {"nearest": self.typicality.nearest, "mahalanobis": self.typicality.mahalanobis}
        # Picture by picture: distances to all references at once would be many.
        return {kind: torch.stack([distance(rows) for rows in embeddings]) for kind, distance in kinds.items()}


def table_rows(
    half: Half, pictures: Sequence[tuple[str, str]], sites: Sequence[Site], strengths: Sequence[Strength]
) -> list[dict[str, Any]]:
    """One row a strength, picture and head: the table that others can work with; null where nothing was decoded.

    Args:
        half: the measurements.
        pictures: id and concept of each.
        sites: the heads.
        strengths: the sweep.

    Raises:
        StoreError: if a part lacks what the others hold.
    """
    rows: list[dict[str, Any]] = []
    effects = {f"effect: {name}": (table, range(len(sites))) for name, table in half.effects().items()}
    for strength in strengths:
        columns: dict[str, tuple[Tensor, Sequence[int]]] = dict(effects)
        columns["rho"] = stacked(half.parts, f"rho.{strength}"), range(len(sites))
        columns["fidelity"] = half.fidelity(strength), half.columns
        for kind, table in half.percentiles(str(strength)).items():
            columns[f"percentile, {kind}"] = table, range(len(sites))
        for compare in (INPUT, half.main.target):
            found = half.scores(strength, compare)
            columns |= {f"similarity with {compare}, {name}": found[name] for name in found if name != ASKED_SAME}
        places = {name: {head: place for place, head in enumerate(heads)} for name, (_, heads) in columns.items()}
        rows += [
            {
                "strength": str(strength),
                "picture": id,
                "concept": concept,
                "site": str(site),
                "layer": site.layer,
                "head": site.head,
            }
            | {
                name: float(table[row, places[name][column]]) if column in places[name] else None
                for name, (table, _) in columns.items()
            }
            for row, (id, concept) in enumerate(pictures)
            for column, site in enumerate(sites)
        ]
    return rows
