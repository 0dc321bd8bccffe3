"""Sparse text decompositions: a few texts that together explain a direction, or a head's writes."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.naming.controls import text_directions
    from steerlens.naming.decomposition import NamedText, NamesMethod, TextDecomposition
    from steerlens.naming.pursuit import omp, omp_rows
    from steerlens.naming.textspan import text_span

__all__ = ["NamedText", "NamesMethod", "TextDecomposition", "omp", "omp_rows", "text_directions", "text_span"]

__getattr__, __dir__ = lazy_names(__name__)
