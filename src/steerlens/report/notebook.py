"""Atlases that show themselves in a notebook."""

from steerlens.atlas.atlas import Atlas
from steerlens.report.html import notebook_view


class NotebookAtlas(Atlas):
    """An atlas that a notebook shows as its first input: layers, best heads and the map of scores.

    Sweeps and stored runs give this class; `Atlas` itself is data alone.
    """

    def _repr_html_(self) -> str:
        return notebook_view(self)
