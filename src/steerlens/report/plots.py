"""Plots of an atlas for notebooks and papers: each draws into one Matplotlib axes and gives it back.

Without axes of the caller, a figure of its own is made, not one of pyplot: nothing is registered anywhere, and a
notebook shows what is returned.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from steerlens.atlas import Atlas, LensName
from steerlens.errors import UsageError
from steerlens.report.colours import SEQUENTIAL
from steerlens.report.figures import render
from steerlens.report.scales import similarity_scale
from steerlens.report.sheet import INK, QUIET, clipped
from steerlens.report.terms import LENSES, lens_names, steered_lens, target_words, two
from steerlens.report.words import words

_GAP, _BELOW = 0.08, 0.45
"""Space between pictures, and below each for its caption, in sides of a picture."""


class ShownAxes(Axes):
    """Axes that a notebook shows as their figure."""

    name = "steerlens"

    def _repr_png_(self) -> bytes | None:
        figure = self.get_figure(root=True)
        return None if figure is None else render(figure, dpi=110)


@dataclass(frozen=True, eq=False)
class Plots:
    """Plots of one atlas; see `Atlas.plot`.

    Attributes:
        atlas: the results.
    """

    atlas: Atlas

    def map(
        self,
        picture: str | None = None,
        *,
        lens: LensName | None = None,
        decoded: bool = True,
        ax: Axes | None = None,
        **imshow: Any,
    ) -> Axes:
        """Draws the similarity of every head with the target, layers along the horizontal axis.

        Args:
            picture: id or name of the input; by default the first.
            lens: the lens; by default the Steering Lens, or the one that the run has.
            decoded: True for decoded pictures, False for embeddings before decoding.
            ax: axes to draw into; by default those of a new figure.
            **imshow: further arguments of `Axes.imshow`, such as `cmap`, `vmin` and `vmax`.

        Raises:
            UsageError: if there is no such input, or the run looked at no head under that lens.
        """
        reading = self.atlas.reading(picture)
        lens = steered_lens(self.atlas) if lens is None else lens
        scores = self.atlas.score_map(lens, reading.id, decoded=decoded)
        if not np.isfinite(scores).any():
            raise UsageError(f"this run looked at no head under the {lens} lens, so there is no map to draw.")
        L, H = scores.shape
        axes = _axes(ax, (min(12.0, 1.6 + 0.32 * L), 1.2 + 0.32 * H))
        low, high = similarity_scale(self.atlas, lens_names(self.atlas))
        colours = LinearSegmentedColormap.from_list("steerlens", list(SEQUENTIAL))
        options: dict[str, Any] = {
            "cmap": colours,
            "vmin": low,
            "vmax": high,
            "interpolation": "nearest",
            "aspect": "equal",
            **imshow,
        }
        image = axes.imshow(scores.T, **options)
        axes.set_xlabel("layer")
        axes.set_ylabel("head")
        axes.set_xticks(range(0, L, max(1, L // 12)))
        axes.set_yticks(range(0, H, max(1, H // 8)))
        axes.set_title(f"{LENSES.get(lens, lens)}: similarity with {clipped(target_words(reading), 40)}", fontsize=9)
        axes.figure.colorbar(image, ax=axes, shrink=0.8)
        return axes

    def strip(self, picture: str | None = None, *, ax: Axes | None = None, columns: int = 13) -> Axes:
        """Draws the Diffusion Lens on the residual stream, layer after layer, beside the input.

        Args:
            picture: id or name of the input; by default the first.
            ax: axes to draw into; by default those of a new figure.
            columns: most pictures in a row.

        Raises:
            UsageError: if there is no such input, or the run has no picture of the residual stream.
        """
        reading = self.atlas.reading(picture)
        sites = sorted(site for site in self.atlas.sites("diffusion", reading.id) if site.kind == "resid_post")
        if not sites:
            raise UsageError("this run has no pictures of the residual stream to draw.")
        tiles: list[tuple[Image.Image, str]] = [(reading.picture.image, "input")]
        for site in sites:
            score = self.atlas.score("diffusion", site, reading.id)
            label = "".join(f"\n{clipped(top.name, 12)}" for top in reading.top_labels(site)[:1])
            tiles.append((score.image, f"{site.layer} · {two(score.similarity)}{label}"))
        return _tiles(ax, tiles, columns, "Diffusion Lens, layer by layer")

    def grid(
        self,
        picture: str | None = None,
        *,
        lens: LensName | None = None,
        k: int = 12,
        ax: Axes | None = None,
        columns: int = 7,
    ) -> Axes:
        """Draws the k heads whose pictures are most similar to the target, beside the input.

        Args:
            picture: id or name of the input; by default the first.
            lens: the lens; by default the Steering Lens, or the one that the run has.
            k: number of heads.
            ax: axes to draw into; by default those of a new figure.
            columns: most pictures in a row.

        Raises:
            UsageError: if there is no such input, or the run looked at no head under that lens.
        """
        reading = self.atlas.reading(picture)
        lens = steered_lens(self.atlas) if lens is None else lens
        scores = self.atlas.ranked(lens, reading.id, k=k)
        if not scores:
            raise UsageError(f"this run looked at no head under the {lens} lens, so there is no ranking to draw.")
        tiles: list[tuple[Image.Image, str]] = [(reading.picture.image, "input")]
        tiles += [(result.image, words(self.atlas)["short"]) for result in self.atlas.clean(reading.id)[:1]]
        for score in scores:
            control = "" if score.control is None else f"\ncontrol {two(score.control)}"
            tiles.append((score.image, f"{score.site.label} · {two(score.similarity)}{control}"))
        title = f"{LENSES.get(lens, lens)}: heads closest to {clipped(target_words(reading), 40)}"
        return _tiles(ax, tiles, columns, title)


def _axes(given: Axes | None, size: tuple[float, float]) -> Axes:
    if given is not None:
        return given
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    return figure.add_subplot(axes_class=ShownAxes)


def _tiles(given: Axes | None, tiles: list[tuple[Image.Image, str]], columns: int, title: str) -> Axes:
    """Draws pictures with captions in rows; a picture is one unit wide."""
    if columns < 1:
        raise UsageError(f"a row has at least 1 picture, not {columns}.")
    rows, columns = -(-len(tiles) // columns), min(columns, len(tiles))
    axes = _axes(given, (0.3 + 1.25 * columns, 0.5 + 1.25 * (1 + _BELOW) * rows))
    for number, (image, caption) in enumerate(tiles):
        row, column = divmod(number, columns)
        left, top = column * (1 + _GAP), row * (1 + _BELOW)
        width, height = (length / max(image.size) for length in image.size)
        side = (1 - width) / 2
        pixels = "nearest" if max(image.size) <= 64 else "antialiased"
        extent = (left + side, left + side + width, top + height, top)
        axes.imshow(np.asarray(image), extent=extent, interpolation=pixels, aspect="equal")
        first, _, rest = caption.partition("\n")
        axes.text(left, top + 1.03, first, fontsize=8, va="top", color=INK, parse_math=False)
        axes.text(left, top + 1.17, rest, fontsize=7, va="top", color=QUIET, parse_math=False)
    axes.set(xlim=(-_GAP, columns * (1 + _GAP)), ylim=(rows * (1 + _BELOW), -_GAP))
    axes.set_axis_off()
    axes.set_title(title, fontsize=9, loc="left")
    return axes
