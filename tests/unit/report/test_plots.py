"""Plots for notebooks: Matplotlib axes given back, drawn from the atlas alone, without pyplot's global state."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from steerlens.errors import UsageError
from steerlens.sweep.look import look


@pytest.fixture(scope="module")
def atlas(pair: Any) -> Any:
    return look(pair, np.random.default_rng(0).random((40, 40, 3)), steps=1, strength="rho=0.5")


def test_the_map_shows_the_scores_of_the_atlas(atlas: Any) -> None:
    axes = atlas.plot.map()
    (image,) = axes.images
    np.testing.assert_allclose(np.asarray(image.get_array()), atlas.score_map("steering").T)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("layer", "head")
    other = atlas.plot.map(lens="diffusion", vmin=-1, vmax=1)
    np.testing.assert_allclose(np.asarray(other.images[0].get_array()), atlas.score_map("diffusion").T)
    assert other.images[0].get_clim() == (-1, 1)


def test_strip_and_grid_show_the_pictures_with_their_numbers(atlas: Any) -> None:
    strip = atlas.plot.strip(columns=3)
    assert len(strip.images) == 1 + atlas.encoder.n_layers
    last = atlas.score("diffusion", f"resid_post.{atlas.encoder.n_layers - 1}")
    assert any(text.get_text().startswith(f"{atlas.encoder.n_layers - 1} · ") for text in strip.texts)
    assert np.array_equal(np.asarray(strip.images[-1].get_array()), np.asarray(last.image))
    grid = atlas.plot.grid(k=2)
    best = atlas.ranked("steering", k=2)
    assert len(grid.images) == 2 + len(best)
    assert {score.site.label for score in best} <= {text.get_text().split(" · ")[0] for text in grid.texts}


def test_axes_are_those_of_the_caller_or_show_themselves(atlas: Any) -> None:
    for draw in (atlas.plot.map, atlas.plot.strip, atlas.plot.grid):
        own = Figure().add_subplot()
        assert draw(ax=own) is own
        assert draw()._repr_png_().startswith(b"\x89PNG")


def test_what_a_run_does_not_hold_is_said(pair: Any, atlas: Any) -> None:
    layers = look(pair, np.zeros((40, 40, 3)), steps=1, sites="resid_post", lenses="diffusion")
    for draw in (layers.plot.map, layers.plot.grid):
        with pytest.raises(UsageError, match="no head"):
            draw()
    with pytest.raises(UsageError, match="at least 1 picture"):
        atlas.plot.grid(columns=0)


def test_a_notebook_shows_a_map_with_axes_and_pictures_to_point_at(atlas: Any) -> None:
    page = atlas._repr_html_()
    heads = atlas.encoder.n_layers * atlas.encoder.n_heads
    assert page.count('class="tip"') == heads
    assert all(f">H{head}<" in page for head in range(atlas.encoder.n_heads))
    assert "<script" not in page and "http" not in page


def test_pyplot_is_not_imported() -> None:
    code = "import steerlens.report.plots, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
