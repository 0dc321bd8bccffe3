"""Which steered sites are worth decoding: all, or those whose steered embedding ranks first without decoding.

Tracing and steering a picture costs one forward pass; decoding costs thousands. A choice ranks the sites of a picture
by the cosine of the steered embedding with the target, and decodes the first of them alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from steerlens.atlas.plan import Cell, LensName, SameCells
from steerlens.errors import UsageError
from steerlens.sites import Site

_KINDS = "all, top:K (the K best of every picture) or above:X (a cosine similarity in [-1,1])"


@dataclass(frozen=True)
class Choice:
    """What of a plan is decoded. Sites of the residual stream always are: they are few, and show the way.

    Attributes:
        kind: `all` cells, the `top` sites of each picture and lens, or those `above` a similarity.
        value: how many sites, or which similarity.
    """

    kind: Literal["all", "top", "above"] = "all"
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Choice":
        """A choice from its text form: `all`, `top:8`, `above:0.3`.

        Raises:
            UsageError: if it is none.
        """
        kind, _, value = text.strip().partition(":")
        try:
            if kind == "all" and not value:
                return cls()
            if kind == "top" and int(value) >= 0:
                return cls("top", int(value))
            if kind == "above" and -1 <= float(value) <= 1:
                return cls("above", float(value))
        except ValueError:
            pass
        raise UsageError(f"what to decode is {_KINDS}, not {text!r}.")

    def __str__(self) -> str:
        return "all" if self.kind == "all" else f"{self.kind}:{self.value:g}"

    def pick(self, similarity: Iterable[tuple[Cell, float]]) -> frozenset[str]:
        """Keys of one picture's cells that are decoded.

        Args:
            similarity: every cell of the picture, and the cosine of its steered embedding with the target; a control's
                is not looked at: controls go with the site that they are controls of.
        """
        cells = list(similarity)
        ranked: dict[LensName, dict[Site, float]] = {}
        for cell, value in cells:
            if cell.lens != "control" and cell.site.is_write:
                ranked.setdefault(cell.lens, {})[cell.site] = value
        chosen = {lens: self._best(sites) for lens, sites in ranked.items()}
        return frozenset(
            cell.key
            for cell, _ in cells
            if not cell.site.is_write or cell.site in chosen["steering" if cell.lens == "control" else cell.lens]
        )

    def _best(self, sites: dict[Site, float]) -> frozenset[Site]:
        if self.kind == "all":
            return frozenset(sites)
        if self.kind == "above":
            return frozenset(site for site, value in sites.items() if value > self.value)
        # Equal similarities keep the order of the plan, so that every machine chooses the same.
        ranked = sorted(sites, key=lambda site: -sites[site])
        return frozenset(ranked[: int(self.value)])

    def at_most(self, cells: Iterable[Cell]) -> int:
        """How many of a plan's cells are decoded at most; exactly, but for `above`."""
        if isinstance(cells, SameCells):
            return len(cells.pictures) * self.at_most(cells.each)
        sites: dict[tuple[str, str, Site], list[Cell]] = {}
        for cell in cells:
            lens = "steering" if cell.lens == "control" else cell.lens
            sites.setdefault((cell.picture, lens, cell.site), []).append(cell)
        counts: dict[tuple[str, str], list[int]] = {}
        always = 0
        for (picture, lens, site), found in sites.items():
            if site.is_write:
                counts.setdefault((picture, lens), []).append(len(found))
            else:
                always += len(found)
        kept = int(self.value) if self.kind == "top" else None
        return always + sum(sum(sorted(found, reverse=True)[:kept]) for found in counts.values())
