"""Atlases that display themselves in a notebook."""

from typing import TYPE_CHECKING

from steerlens.atlas import Atlas
from steerlens.report.html import notebook_view

if TYPE_CHECKING:
    from steerlens.report.plots import Plots


class NotebookAtlas(Atlas):
    """Atlas that a notebook displays by its first input: layers, best heads and the map of scores.

    Sweeps and stored runs return this class; `Atlas` itself is pure data.
    """

    @property
    def plot(self) -> "Plots":
        """Plots of the atlas: `map()`, `strip()` and `grid()`, each of which gives Matplotlib axes back."""
        from steerlens.report.plots import Plots  # Matplotlib is imported when something is drawn

        return Plots(self)

    def _repr_html_(self) -> str:
        return notebook_view(self)
