"""Scores of the strength study, as tables over pictures and heads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.lenses import Strength
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.measurements import PictureTables
from steerlens.studies.shared.targets import INPUT
from steerlens.studies.shared.typicality import Typicality
from steerlens.studies.strength.measure import CLEAN

DECODED, UNDECODED, UNDECODED_SAME, JUDGED = (
    "decoded",
    "not decoded",
    "not decoded, the decoded heads",
    "decoded, judged",
)
"""Scores of pictures; of requested embeddings, for all heads or for the decoded heads; of pictures by the judge."""

NEAREST, MAHALANOBIS = "nearest", "mahalanobis"
"""Kinds of distance from real embeddings."""


@dataclass(frozen=True, eq=False)
class Half:
    """Measurements of one half of the concepts.

    Its tables raise `StoreError` if a part lacks a tensor.

    Attributes:
        tables: measurements of its pictures.
        concepts: concept of each picture.
        columns: indices of the decoded heads.
        main: the signed total effect.
        typicality: reference set of unstudied real embeddings.
        draws: bootstrap draws of intervals.
    """

    tables: PictureTables
    concepts: Sequence[str]
    columns: Sequence[int]
    main: Effect
    typicality: Typicality
    draws: int = 500

    def effects(self) -> dict[Effect, Float[Tensor, "P N"]]:
        """The signed and the unsigned total effect of every head."""
        return {effect: effect.table(self.tables) for effect in (self.main, self.main.unsigned)}

    def scores(self, strength: Strength, compare: str) -> dict[str, tuple[Float[Tensor, "P n"], Sequence[int]]]:
        """Similarities with the input or a target, by score, each with the indices of its heads."""
        requested = self.tables.requested_scores(strength, compare)
        all_heads = range(requested.shape[1])
        scores: dict[str, tuple[Tensor, Sequence[int]]] = {
            DECODED: (self.tables.decoded_scores(strength, compare).mean(dim=0), self.columns),
            UNDECODED: (requested, all_heads),
        }
        if len(self.columns) < len(all_heads):
            scores[UNDECODED_SAME] = requested[:, list(self.columns)], self.columns
        if compare in self.tables.judged_targets:
            judged = self.tables.decoded_scores(strength, compare, viewer="judge").mean(dim=0)
            scores[JUDGED] = judged, self.columns
        return scores

    def fidelity(self, strength: Strength) -> Float[Tensor, "P n"]:
        """Cosine of each decoded picture's embedding with the requested one, mean over seeds."""
        return self._fidelity(strength, self.tables.requested(strength)[:, list(self.columns)])

    def clean_fidelity(self) -> Float[Tensor, "P 1"]:
        """Fidelity of the unsteered embedding's pictures."""
        return self._fidelity(CLEAN, self.tables.clean[:, None])

    def _fidelity(self, setting: object, requested: Float[Tensor, "P n E"]) -> Float[Tensor, "P n"]:
        return cosine_similarity(self.tables.decoded(setting), requested[None]).mean(dim=0)

    def percentiles(self, strength: Strength | None) -> dict[str, Float[Tensor, "P n"]]:
        """Typicality of the steered embeddings of a strength, or of the clean ones for None, by kind of distance."""
        embeddings = self.tables.clean[:, None] if strength is None else self.tables.requested(strength)
        kinds = {NEAREST: self.typicality.nearest, MAHALANOBIS: self.typicality.mahalanobis}
        # Picture by picture, to limit memory.
        return {kind: torch.stack([distance(rows) for rows in embeddings]) for kind, distance in kinds.items()}


def table_rows(
    half: Half, pictures: Sequence[tuple[str, str]], sites: Sequence[Site], strengths: Sequence[Strength]
) -> list[dict[str, Any]]:
    """Rows of the study's table, one per strength, picture and head; null for heads that were not decoded.

    Args:
        half: the measurements.
        pictures: id and concept of each picture.
        sites: the heads.
        strengths: strengths of the sweep.

    Raises:
        StoreError: if a part lacks a tensor.
    """
    rows: list[dict[str, Any]] = []
    all_heads = range(len(sites))
    effects = {f"effect: {effect}": (table, all_heads) for effect, table in half.effects().items()}
    for strength in strengths:
        columns: dict[str, tuple[Tensor, Sequence[int]]] = dict(effects)
        columns["rho"] = half.tables.rho(strength), all_heads
        columns["fidelity"] = half.fidelity(strength), half.columns
        for kind, table in half.percentiles(strength).items():
            columns[f"percentile, {kind}"] = table, all_heads
        for compare in (INPUT, half.main.target):
            columns |= {
                f"similarity with {compare}, {name}": score
                for name, score in half.scores(strength, compare).items()
                if name != UNDECODED_SAME
            }
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
