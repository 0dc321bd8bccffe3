"""Scores of sites beside their controls: text and number agree."""

from dataclasses import replace

import numpy as np
import pytest

from steerlens.atlas import Effect, Lazy, LensName, Reading
from steerlens.errors import UsageError
from steerlens.testing.atlases import fake_atlas


@pytest.mark.parametrize("controls", [1, 3])
def test_the_share_of_controls_compares_means_over_seeds_with_means_over_seeds(controls: int) -> None:
    atlas = fake_atlas(seeds=(0, 1, 2), controls=controls)
    results = [result for result in atlas.results if result.cell.lens == "control"]
    pool = [
        np.mean([result.similarity for result in results if (result.cell.site, result.cell.draw) == direction])
        for direction in {(result.cell.site, result.cell.draw) for result in results}
    ]
    assert len(pool) == 6 * controls and len(results) == 3 * len(pool)
    for site in atlas.sites("steering"):
        own = np.mean([result.similarity for result in atlas.cells("steering", site)])
        score = atlas.score("steering", site)
        assert score.similarity == pytest.approx(own)
        assert score.control_share == pytest.approx(np.mean([value < own for value in pool]))
        control = [result.similarity for result in results if result.cell.site == site]
        assert score.control == pytest.approx(np.mean(control)) and score.beats_control == (own > np.mean(control))


@pytest.mark.parametrize(
    ("sites", "lenses", "effects", "lens"),
    [
        ("heads", ("diffusion", "steering"), ("direct", "total"), "steering"),
        ("heads", ("diffusion", "steering"), ("total",), "total"),
        ("heads", ("diffusion",), ("direct",), "diffusion"),
        ("resid_post,mlp_out.*", ("diffusion", "steering"), ("direct",), None),
    ],
)
def test_heads_are_ranked_by_the_first_lens_that_shows_any(
    sites: str, lenses: tuple[LensName, ...], effects: tuple[Effect, ...], lens: LensName | None
) -> None:
    atlas = fake_atlas(("apple", "pear"), sites=sites, lenses=lenses, effects=effects)
    assert [atlas.ranking_lens(), atlas.ranking_lens("pear")] == [lens, lens]


def test_a_stored_reading_is_read_without_those_before_it() -> None:
    atlas, read = fake_atlas(("apple", "pear", "plum")), list[int]()

    def stored(index: int) -> Reading:
        read.append(index)
        return atlas.readings[index]

    lazy = replace(atlas, readings=Lazy(3, stored))
    assert lazy.reading(atlas.readings[2].id).picture.name == "plum" and read == [2]
    assert lazy.reading("pear").id == atlas.readings[1].id
    unfinished = replace(atlas, readings=atlas.readings[1:])
    assert unfinished.reading(atlas.readings[2].id).picture.name == "plum"
    with pytest.raises(UsageError):
        unfinished.reading(atlas.readings[0].id)
