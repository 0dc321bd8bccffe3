"""A report says where random directions score as high as the clean reconstruction."""

from dataclasses import replace

import pytest
import torch

from steerlens.atlas import Atlas
from steerlens.report.findings import sentences
from steerlens.report.ordering import random_scores, unordered_sentence
from steerlens.testing.atlases import fake_atlas


def scored(clean: float, controls: list[float], target: str = "the input itself", lens: str = "control") -> Atlas:
    """An atlas of three layers of two heads, whose residual stream scores .4 and whose six controls score as given."""
    effects = ("total",) if lens == "total_control" else ("direct",)
    atlas = fake_atlas(layers=3, heads=2, sites="resid_post,heads", target=target, effects=effects)
    (id,) = atlas.plan.pictures
    (last,) = atlas.clean(id)
    values = iter(controls)
    results = [
        replace(
            result,
            similarity=clean if result is last else next(values) if result.cell.lens == lens else 0.4,
        )
        for result in atlas.results
    ]
    assert next(values, None) is None
    return replace(atlas, results=tuple(results))


@pytest.mark.parametrize("lens", ["control", "total_control"])
def test_random_directions_above_the_clean_reconstruction_are_told(lens: str) -> None:
    atlas = scored(0.54, [0.5, 0.6, 0.7, 0.74, 0.8, 0.83], lens=lens)
    (reading,) = atlas.readings
    assert random_scores(atlas, reading.id) == pytest.approx((6, 0.72, 0.83, 0.54))
    said = unordered_sentence(atlas, reading)
    assert said is not None and said in sentences(atlas, reading)
    assert "score higher than the clean reconstruction (median 0.72, highest 0.83, of 6 controls, against 0.54)" in said
    assert "does not order heads on this input" in said and "--effect total" in said
    assert not any("keeps at least half" in sentence for sentence in sentences(atlas, reading))
    measured = replace(reading, ablation_effects=torch.zeros(3, 2))
    assert "the map: Without it" in str(unordered_sentence(replace(atlas, readings=(measured,)), measured))


def test_the_median_decides() -> None:
    below, equal = scored(0.54, [0.5, 0.5, 0.53, 0.53, 0.9, 0.9]), scored(0.5, [0.5] * 6)
    assert unordered_sentence(below, below.readings[0]) is None
    assert any("keeps at least half" in sentence for sentence in sentences(below, below.readings[0]))
    assert "score as high as the clean" in str(unordered_sentence(equal, equal.readings[0]))


def test_another_target_or_no_controls_say_nothing() -> None:
    text = scored(0.1, [0.3] * 6, target="a cat")
    assert unordered_sentence(text, text.readings[0]) is None
    none = fake_atlas(layers=3, heads=2, controls=0)
    assert random_scores(none, none.readings[0].id) is None and unordered_sentence(none, none.readings[0]) is None
