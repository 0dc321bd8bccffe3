"""Features and neurons on a page and in figures: numbers are those of the readings."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_saes import tiny_sae

from steerlens.atlas import Atlas
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.report.figures import save_figures
from steerlens.report.findings import sentences
from steerlens.report.html import notebook_view
from steerlens.report.unit_figures import unit_grid
from steerlens.report.units import sae_lines, unit_data
from steerlens.sweep.look import look
from steerlens.zoo import Pair


def atlas_of(pair: Pair, **changes: Any) -> Atlas:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    return look(pair, Picture.from_image(Image.fromarray(pixels), "noise"), steps=2, strongest=3, **changes)


def test_the_page_has_the_numbers_of_the_reading(pair: Pair) -> None:
    atlas = atlas_of(pair, saes=[tiny_sae(pair.encoder), tiny_sae(pair.encoder, "embedding", name="after")])
    reading = atlas.reading()
    for data, unit in zip(unit_data(atlas, reading), reading.units, strict=True):
        assert data["key"] == str(unit.site) and data["group"] == unit.site.name
        assert data["effect"] == pytest.approx(unit.effect, abs=1e-4)
        if unit.tokens is None:
            assert data["map"] is None and data["group"] == "after"
            continue
        patches = unit.tokens[atlas.encoder.first_patch :].abs()
        stored = np.frombuffer(base64.b64decode(data["map"]), dtype="<u2") / 65535 * data["peak"]
        assert np.allclose(stored, patches.numpy(), atol=1e-3)
    lines = sae_lines(atlas)
    assert [line["name"] for line in lines] == ["tiny", "after"] and all(line["poor"] for line in lines)
    assert "40 features of resid_post.1 (relu)" in lines[0]["words"]
    assert "explained variance unknown, as there is one value" in lines[0]["fit"]
    active = atlas.manifest["saes"]["tiny"]["active"][reading.id]
    assert any(f"{active} of the 40 features of tiny are active" in sentence for sentence in sentences(atlas, reading))


def test_a_notebook_shows_features_and_the_fit(pair: Pair) -> None:
    shown = notebook_view(atlas_of(pair, sites="features", saes=[tiny_sae(pair.encoder)]))
    assert "Diffusion Steering Lens: features closest to the input" in shown
    assert "tiny fits these inputs poorly" in shown and "heads closest" not in shown


def test_figures_show_features_where_there_are_any(pair: Pair, tmp_path: Path) -> None:
    drawn = save_figures(atlas_of(pair, sites="features,neurons", saes=[tiny_sae(pair.encoder)]), tmp_path)
    assert {"features.png", "features.svg"} <= {path.name for path in drawn}
    with pytest.raises(UsageError, match="no picture of a feature"):
        unit_grid(look(pair, Picture.from_image(Image.new("RGB", (20, 20)), "black"), steps=2, sites="head.0.0"))
