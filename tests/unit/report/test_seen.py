"""Inputs in figures are what the encoder saw; scales of colours suit the run."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from steerlens.atlas import Atlas
from steerlens.encoders.geometry import Geometry, covering, stretched, unknown
from steerlens.images import Picture
from steerlens.report.content import picture_data
from steerlens.report.findings import head_counts, sentences
from steerlens.report.scales import similarity_scale
from steerlens.report.seen import seen_picture
from steerlens.report.terms import lens_names
from steerlens.testing.atlases import fake_atlas


def halves(width: int, height: int) -> Image.Image:
    """A picture whose left half is red and whose right half is blue."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    return Image.fromarray(pixels)


def seen(geometry: Geometry, picture: Image.Image) -> np.ndarray:
    atlas = fake_atlas()
    atlas = replace(atlas, encoder=replace(atlas.encoder, geometry=geometry))
    reading = replace(atlas.readings[0], picture=Picture("halves", lambda: picture, "0" * 64))
    return np.asarray(seen_picture(atlas, reading))


def test_a_crop_shows_the_centre_alone() -> None:
    pixels = seen(covering((16, 16)), halves(64, 32))
    assert pixels.shape == (32, 32, 3)
    assert (pixels[:, :14, 0] > 200).all() and (pixels[:, 18:, 2] > 200).all()


def test_a_stretched_input_has_the_form_of_the_models_input() -> None:
    assert seen(stretched((16, 16)), halves(64, 32)).shape[0] == seen(stretched((16, 16)), halves(64, 32)).shape[1]


def test_padding_is_white() -> None:
    pixels = seen(Geometry("contain", (16, 16), (16, 16)), halves(64, 32))
    assert pixels.shape == (64, 64, 3)
    assert (pixels[[0, -1]] == 255).all()
    assert (pixels[32, :28, 0] > 200).all() and (pixels[32, :28, 1] < 50).all()


def test_a_geometry_that_is_not_known_leaves_the_picture_whole() -> None:
    assert seen(unknown((16, 16)), halves(64, 32)).shape == (32, 64, 3)


def with_similarities(scale: float, shift: float) -> Atlas:
    atlas = fake_atlas()
    results = [replace(result, similarity=scale * result.similarity + shift) for result in atlas.results]
    readings = [replace(reading, steered_similarity=None) for reading in atlas.readings]
    return replace(atlas, results=tuple(results), readings=tuple(readings))


@pytest.mark.parametrize(
    ("scale", "shift", "low", "high"), [(0.0, 0.7, 0.0, 1.0), (0.0, 0.04, 0.0, 0.05), (0.0, -0.03, -0.05, 0.01)]
)
def test_the_scale_holds_every_similarity(scale: float, shift: float, low: float, high: float) -> None:
    atlas = with_similarities(scale, shift)
    assert similarity_scale(atlas, lens_names(atlas)) == pytest.approx((low, high))


def test_a_selection_has_no_chance_level() -> None:
    atlas = fake_atlas(layers=3, heads=2)
    selected = replace(
        atlas,
        manifest={**atlas.manifest, "decode": "top:2"},
        readings=tuple(replace(reading, steered_similarity=torch.rand(3, 2)) for reading in atlas.readings),
    )
    everything, some = head_counts(atlas, atlas.readings[0].id), head_counts(selected, atlas.readings[0].id)
    assert everything is not None and some is not None
    assert everything["chance"] == 3 and some["chance"] is None and some["strongChance"] is None
    said = " ".join(sentences(selected, selected.readings[0]))
    assert "chance alone" not in said and "no level of chance" in said
    assert "chance alone" in " ".join(sentences(atlas, atlas.readings[0]))
    assert len(picture_data(selected, selected.readings[0])["undecoded"]) == 6
