"""The neighbours decoder: the nearest pictures of the user's own folder, with an index instead of weights."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.decoders.neighbours.adapter import NeighboursDecoder
    from steerlens.decoders.neighbours.build import build_index
    from steerlens.decoders.neighbours.index import Skipped, index_pictures, is_index, source_of_index

__all__ = ["NeighboursDecoder", "Skipped", "build_index", "index_pictures", "is_index", "source_of_index"]

__getattr__, __dir__ = lazy_names(__name__)
