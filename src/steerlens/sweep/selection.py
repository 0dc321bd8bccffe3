"""Selection of the cells to decode: all, or those whose steered embedding ranks first without decoding.

Tracing and steering a picture costs one forward pass; decoding costs thousands. A selection ranks the sites of a
picture by the cosine of the steered embedding with the target, and only the first of them are decoded.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from steerlens.atlas import Cell, LensName, RepeatedCells, leading_lens
from steerlens.errors import UsageError
from steerlens.sites import Site

_FORMS = "all, top:K (the K best of every picture), above:X (a cosine similarity in [-1,1]) or none"


@dataclass(frozen=True)
class Selection:
    """Rule that selects the cells of a plan to decode; sites of the residual stream are always selected.

    Attributes:
        rule: `all` cells, the `top` sites of each picture and lens, or those `above` a similarity.
        value: number of sites, or threshold of the cosine similarity.
    """

    rule: Literal["all", "top", "above"] = "all"
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Selection":
        """Parses the text form of a selection: `all`, `top:8`, `above:0.3`; or `none`, which is `top:0`.

        Raises:
            UsageError: if the text has none of these forms.
        """
        kind, colon, value = text.strip().partition(":")
        try:
            if kind == "all" and not colon:
                return cls()
            if kind == "none" and not colon:
                return cls("top", 0)
            if kind == "top" and value.isascii() and value.isdigit():
                return cls("top", int(value))
            if kind == "above" and "_" not in value and -1 <= float(value) <= 1:
                return cls("above", float(value))
        except ValueError:
            pass
        raise UsageError(f"decode must be {_FORMS}, not {text!r}.")

    def __str__(self) -> str:
        if self.rule == "all":
            return "all"
        # The text is part of a run's identity: it must tell any two thresholds apart.
        short = f"{self.value:g}"
        return f"{self.rule}:{short if float(short) == self.value else repr(self.value)}"

    def select(self, similarity: Iterable[tuple[Cell, float]]) -> frozenset[str]:
        """Selects the cells of one picture to decode; returns their keys.

        Args:
            similarity: every cell of the picture with the cosine of its steered embedding and the target; ignored for
                cells that are selected with another (`leading_lens`): controls, ablations, and total effects beside
                direct ones.
        """
        cells = list(similarity)
        planned = frozenset(cell.lens for cell, _ in cells)
        ranked: dict[LensName, dict[Site, float]] = {}
        for cell, value in cells:
            if leading_lens(cell.lens, planned) == cell.lens and cell.site.is_write:
                ranked.setdefault(cell.lens, {})[cell.site] = value
        best = {lens: self._best(sites) for lens, sites in ranked.items()}
        return frozenset(
            cell.key
            for cell, _ in cells
            if not cell.site.is_write or cell.site in best[leading_lens(cell.lens, planned)]
        )

    @staticmethod
    def ranks(cells: Iterable[Cell]) -> list[Cell]:
        """Cells whose similarity decides; those of others need not be known."""
        cells = list(cells)
        planned = frozenset(cell.lens for cell in cells)
        return [cell for cell in cells if leading_lens(cell.lens, planned) == cell.lens]

    def _best(self, sites: dict[Site, float]) -> frozenset[Site]:
        if self.rule == "all":
            return frozenset(sites)
        if self.rule == "above":
            return frozenset(site for site, value in sites.items() if value > self.value)
        # Ties keep the order of the plan, so that every machine selects the same sites.
        ranked = sorted(sites, key=lambda site: -sites[site])
        return frozenset(ranked[: int(self.value)])

    def at_most(self, cells: Iterable[Cell]) -> int:
        """Upper bound of the number of cells that can be selected; exact for `all` and `top`."""
        if isinstance(cells, RepeatedCells):
            return len(cells.pictures) * self.at_most(cells.each)
        cells = list(cells)
        planned = frozenset(cell.lens for cell in cells)
        sites: dict[tuple[str, str, Site], list[Cell]] = {}
        for cell in cells:
            lens = leading_lens(cell.lens, planned)
            sites.setdefault((cell.picture, lens, cell.site), []).append(cell)
        counts: dict[tuple[str, str], list[int]] = {}
        always = 0
        for (picture, lens, site), of_site in sites.items():
            if site.is_write:
                counts.setdefault((picture, lens), []).append(len(of_site))
            else:
                always += len(of_site)
        most = int(self.value) if self.rule == "top" else None
        return always + sum(sum(sorted(sizes, reverse=True)[:most]) for sizes in counts.values())
