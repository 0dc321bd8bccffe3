"""Atlases that display themselves in a notebook."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import import_module
from typing import TYPE_CHECKING, Any

from steerlens.atlas import Atlas
from steerlens.errors import UsageError
from steerlens.report.html import notebook_view, report_page

if TYPE_CHECKING:
    from steerlens.report.plots import Plots

_PAGE_BYTES = 12_000_000
"""Most characters of picture data of a page inside a notebook, which is saved with it."""


class NotebookAtlas(Atlas):
    """Atlas that a notebook displays by its first input: layers, best heads and the map of scores.

    Sweeps and stored runs return this class; `Atlas` itself is pure data.
    """

    @property
    def plot(self) -> "Plots":
        """Plots of the atlas: `map()`, `strip()` and `grid()`, each of which gives Matplotlib axes back."""
        from steerlens.report.plots import Plots  # Matplotlib is imported when something is drawn

        return Plots(self)

    def explore(self, pair: Any = None, *, inputs: Sequence[str] | None = None, height: int = 820) -> "Exploration":
        """The page of the atlas inside a notebook: its report, or the live explorer.

        Args:
            pair: the model of the atlas, as `steerlens.load` returns it, for the live explorer; needs the extra `app`.
                Without it, the page is static, and stays in the notebook when its kernel is gone.
            inputs: names or ids of the inputs to show; by default the first dozen.
            height: height of the page in pixels.

        Raises:
            UsageError: if the atlas has no such input, or the extra `app` is not installed.
        """
        if not self.readings:
            raise UsageError("this atlas has no input yet: there is nothing to explore.")
        first = [self.readings[index].id for index in range(min(len(self.readings), _MOST_INPUTS))]
        shown = self.only(list(inputs) if inputs is not None else first)
        page = report_page(shown, inputs=len(self.readings), budget=_PAGE_BYTES)
        return Exploration(page, height, None if pair is None else _serve(shown, pair))

    def _repr_html_(self) -> str:
        return notebook_view(self)


_MOST_INPUTS = 12


def _serve(atlas: Atlas, pair: Any) -> Any:
    # By name: the explorer stands above the reports, which work without it.
    serve = import_module("steerlens.app").serve_in_thread
    return serve(pair, run=atlas)


@dataclass(frozen=True, eq=False)
class Exploration:
    """A page in a frame of a notebook; `close` ends the server of a live one.

    Attributes:
        page: the static page, which a live one falls back to once its kernel is gone.
        height: height in pixels.
        server: the server of the live explorer; None for a static page.
    """

    page: str = field(repr=False)
    height: int
    server: Any = None

    @property
    def url(self) -> str | None:
        """Address of the live explorer; None for a static page."""
        return None if self.server is None else str(self.server.url)

    def close(self) -> None:
        """Stops the server; the static page stays."""
        if self.server is not None:
            self.server.close()

    def _repr_html_(self) -> str:
        # Without `allow-same-origin`, the page cannot reach the notebook around it.
        static = (
            f'<iframe title="steerlens: report" sandbox="allow-scripts" srcdoc="{escape(self.page, quote=True)}" '
            f'style="width: 100%; height: {self.height}px; border: 1px solid #8884" loading="lazy"></iframe>'
        )
        if self.url is None:
            return static
        return (
            f'<iframe title="steerlens: live explorer" src="{escape(self.url, quote=True)}" '
            f'style="width: 100%; height: {self.height}px; border: 1px solid #8884"></iframe>'
            f"<details><summary>The finished pictures, without a kernel</summary>{static}</details>"
        )
