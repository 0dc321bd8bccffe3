"""Indexing a folder and opening the index, in one call."""

from pathlib import Path

from steerlens.decoders.neighbours.adapter import NeighboursDecoder
from steerlens.decoders.neighbours.index import index_pictures
from steerlens.encoders import Encoder
from steerlens.progress import run_to_end


def build_index(encoder: Encoder, pictures: Path | str, out: Path | str, *, source: str = "") -> NeighboursDecoder:
    """Indexes a folder without progress, and opens the index; arguments as in `index_pictures`."""
    return NeighboursDecoder(run_to_end(index_pictures(encoder, Path(pictures), Path(out), source=source)))
