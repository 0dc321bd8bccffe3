"""Atlas: the plan of a sweep and its results, as data."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.atlas.atlas import Atlas
    from steerlens.atlas.domain import DomainCheck
    from steerlens.atlas.lazy import Lazy
    from steerlens.atlas.plan import (
        CONTROLS,
        EFFECTS,
        LENS_NAMES,
        REAL_PASSES,
        Cell,
        Effect,
        LensName,
        Plan,
        RepeatedCells,
        clean_site,
        compact,
        foil_of,
        leading_lens,
        make_plan,
    )
    from steerlens.atlas.results import CellResult, LazyResults, Reading, SiteScore

__all__ = [
    "CONTROLS",
    "EFFECTS",
    "LENS_NAMES",
    "REAL_PASSES",
    "Atlas",
    "Cell",
    "CellResult",
    "DomainCheck",
    "Effect",
    "Lazy",
    "LazyResults",
    "LensName",
    "Plan",
    "Reading",
    "RepeatedCells",
    "SiteScore",
    "clean_site",
    "compact",
    "foil_of",
    "leading_lens",
    "make_plan",
]

__getattr__, __dir__ = lazy_names(__name__)
