"""Atlas: the plan of a sweep and its results, as data."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.atlas.atlas import Atlas
    from steerlens.atlas.cards import CardEnd, CardPicture, Faithfulness, HeadCard, InputCards, TextScore
    from steerlens.atlas.domain import DomainCheck
    from steerlens.atlas.lazy import Lazy
    from steerlens.atlas.plan import (
        CONTROLS,
        EFFECTS,
        LENS_NAMES,
        REAL_PASSES,
        Cell,
        CellsByPicture,
        Effect,
        LensName,
        Plan,
        RepeatedCells,
        cells_by_picture,
        clean_site,
        compact,
        foil_of,
        leading_lens,
        make_plan,
    )
    from steerlens.atlas.results import CellResult, LazyResults, Reading, SiteScore, UnitReading

__all__ = [
    "CONTROLS",
    "EFFECTS",
    "LENS_NAMES",
    "REAL_PASSES",
    "Atlas",
    "CardEnd",
    "CardPicture",
    "Cell",
    "CellResult",
    "CellsByPicture",
    "DomainCheck",
    "Effect",
    "Faithfulness",
    "HeadCard",
    "InputCards",
    "Lazy",
    "LazyResults",
    "LensName",
    "Plan",
    "Reading",
    "RepeatedCells",
    "SiteScore",
    "TextScore",
    "UnitReading",
    "cells_by_picture",
    "clean_site",
    "compact",
    "foil_of",
    "leading_lens",
    "make_plan",
]

__getattr__, __dir__ = lazy_names(__name__)
