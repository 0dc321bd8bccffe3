"""Figures: panels, fixed scales, text kept as text, no global state."""

import io
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from steerlens.errors import UsageError
from steerlens.report import figures
from steerlens.report.colours import SEQUENTIAL, colour
from steerlens.report.scales import similarity_scale
from steerlens.report.terms import lens_names
from steerlens.testing.atlases import fake_atlas


def _pictures(figure: Figure) -> int:
    return sum(len(axes.images) for axes in figure.get_axes() if not axes.axison)


def _texts(figure: Figure) -> str:
    return figures.render(figure, "svg").decode()


def test_strip_has_the_input_and_every_layer() -> None:
    assert _pictures(figures.layer_strip(fake_atlas(layers=5))) == 6
    assert _pictures(figures.layer_strip(fake_atlas(layers=14, heads=1), columns=4)) == 15


def test_grid_has_input_clean_and_k_heads() -> None:
    atlas = fake_atlas(layers=4, heads=3)
    assert _pictures(figures.top_grid(atlas, k=4)) == 6
    assert _pictures(figures.lens_comparison(atlas)) == 16
    assert atlas.ranked("steering")[0].site.label in _texts(figures.top_grid(atlas))


def test_map_has_one_panel_a_lens_on_one_scale() -> None:
    atlas = fake_atlas(layers=4, heads=3)
    panels = [axes for axes in figures.score_map(atlas).get_axes() if axes.images]
    assert len(panels) == 2
    scale = similarity_scale(atlas, lens_names(atlas))
    assert all(axes.images[0].get_clim() == scale for axes in panels)
    np.testing.assert_allclose(panels[1].images[0].get_array(), atlas.score_map("steering").T)
    assert len([axes for axes in figures.score_map(atlas, lenses=["diffusion"]).get_axes() if axes.images]) == 1


def test_map_of_some_heads_marks_the_others() -> None:
    figure = figures.score_map(fake_atlas(layers=4, heads=3, sites="L1H1,L2H2"))
    crosses = figure.get_axes()[0].collections[0].get_offsets()
    assert len(crosses) == 10


def test_effects_are_compared_column_by_column() -> None:
    atlas = fake_atlas(layers=4, heads=3, effects=("direct", "total"))
    figure = figures.effect_comparison(atlas, k=4)
    assert _pictures(figure) == 3 * 6  # input, clean and four heads, under each
    text = _texts(figure)
    assert "Direct:" in text and "Total:" in text and "Without it:" in text and "changes" in text
    assert _pictures(figures.effect_comparison(fake_atlas(effects=("total",)), k=4)) == 2 * 6
    other = fake_atlas(sites="mlp_out", effects=("direct", "total"))
    assert _pictures(figures.effect_comparison(other, k=2)) == 3 * 4
    with pytest.raises(UsageError, match="no total effect"):
        figures.effect_comparison(fake_atlas())


def test_control_plot_needs_controls() -> None:
    figures.control_plot(fake_atlas())
    with pytest.raises(UsageError, match="no controls"):
        figures.control_plot(fake_atlas(controls=0))


@pytest.mark.parametrize("draw", [figures.score_map, figures.top_grid, figures.lens_comparison])
def test_no_heads_is_said(draw: object) -> None:
    with pytest.raises(UsageError, match="no head"):
        draw(fake_atlas(sites="resid_post"))  # type: ignore[operator]


def test_no_residual_stream_is_said() -> None:
    with pytest.raises(UsageError, match="residual stream"):
        figures.layer_strip(fake_atlas(sites="heads"))


def test_figures_of_several_inputs_have_names_that_are_safe(tmp_path: Path) -> None:
    names = ("../../etc/$x$ <b>", "../../etc/$x$ <b>")
    written = figures.save_figures(fake_atlas(names, layers=2), tmp_path)
    assert all(path.parent == tmp_path and path.is_file() for path in written)
    assert {path.suffix for path in written} == {".png", ".svg"}
    assert len({path.name for path in written}) == len(written) == 20


def test_runs_with_missing_parts_get_the_figures_they_can(tmp_path: Path) -> None:
    names = {path.stem for path in figures.save_figures(fake_atlas(sites="resid_post", vocabulary=False), tmp_path)}
    assert names == {"overview", "layers"}


def test_rendering_repeats_and_keeps_text() -> None:
    atlas = fake_atlas(target="costs $5 or $6")
    first, again = (figures.render(figures.overview(atlas), "svg") for _ in range(2))
    assert first == again
    assert b"costs $5 or $6" in first
    assert Image.open(io.BytesIO(figures.render(figures.overview(atlas)))).size[0] == 9 * figures.DPI


def test_pyplot_is_never_touched() -> None:
    import subprocess

    code = "import steerlens.report.figures, steerlens.report.html, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ramp_darkens_steadily() -> None:
    greys = [np.dot([0.299, 0.587, 0.114], list(bytes.fromhex(colour(x, 0, 1)[1:]))) for x in np.linspace(0, 1, 30)]
    assert all(a > b for a, b in pairwise(greys))
    assert colour(-1, 0, 1) == SEQUENTIAL[0]
    assert colour(2, 0, 1) == SEQUENTIAL[-1]
