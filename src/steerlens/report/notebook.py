"""Atlases that display themselves in a notebook."""

from steerlens.atlas import Atlas
from steerlens.report.html import notebook_view


class NotebookAtlas(Atlas):
    """Atlas that a notebook displays by its first input: layers, best heads and the map of scores.

    Sweeps and stored runs return this class; `Atlas` itself is pure data.
    """

    def _repr_html_(self) -> str:
        return notebook_view(self)
