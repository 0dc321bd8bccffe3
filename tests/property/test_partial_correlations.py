"""Partial and pooled rank correlations against plain definitions: residuals of ranks, and drawn tables written out."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steerlens.studies.shared.partial import GIVEN, LAYER, NORM, DrawnCorrelations, layer_table
from steerlens.studies.shared.pooled import pooled_estimate, pooled_of_draws, pooled_spearman
from steerlens.studies.shared.stats import correlation_estimate, difference_estimate, ranks, spearman


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def residuals(side: Tensor, covariates: list[Tensor]) -> np.ndarray:
    """Ranks of one picture's heads after a linear regression on the ranks of covariates."""
    design = np.stack([np.ones(len(side)), *(ranks(covariate[None])[0].numpy() for covariate in covariates)], axis=1)
    own = ranks(side[None])[0].numpy()
    return own - design @ np.linalg.lstsq(design, own, rcond=None)[0]


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([4, 1000]), heads=st.integers(8, 20))
def test_partial_correlations_are_those_of_residuals_of_ranks(seed: int, levels: int, heads: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    score, effect, norm = torch.randint(0, levels, (3, 3, heads), generator=generator).double()
    layer = layer_table([head // 3 for head in range(heads)], 3)
    drawn = DrawnCorrelations({"s": score, "e": effect, NORM: norm, LAYER: layer}, list("abc"), draws=0)
    for names in GIVEN.values():
        found = drawn.given("s", "e", names)[0]
        for row in range(3):
            own = [{NORM: norm, LAYER: layer}[name][row] for name in names]
            sides = [residuals(side[row], own) for side in (score, effect)]
            if min(side.std() for side in sides) < 1e-6:
                continue
            assert float(found[row]) == pytest.approx(np.corrcoef(*sides)[0, 1], abs=1e-6)


def test_without_covariates_the_estimates_are_those_of_the_plain_bootstrap() -> None:
    own = noise(10, 20, seed=1)
    tables = {"s": own + noise(10, 20, seed=2), "t": own + noise(10, 20, seed=3), "e": own}
    concepts = [f"c{row // 2}" for row in range(10)]
    drawn = DrawnCorrelations(tables, concepts, draws=60)
    assert drawn.estimate("s", "e") == correlation_estimate(tables["s"], own, concepts, draws=60)
    assert drawn.difference("s", "t", "e") == difference_estimate(tables["s"], tables["t"], own, concepts, draws=60)


def test_a_score_that_knows_only_the_norm_has_no_correlation_left() -> None:
    norm = noise(20, 72, seed=4)
    score, effect = norm + 0.3 * noise(20, 72, seed=5), norm + 0.3 * noise(20, 72, seed=6)
    layer = layer_table([head // 6 for head in range(72)], 20)
    drawn = DrawnCorrelations({"s": score, "e": effect, NORM: norm, LAYER: layer}, list(map(str, range(20))), draws=100)
    assert drawn.estimate("s", "e").value > 0.8
    left = drawn.estimate("s", "e", (NORM,))
    assert abs(left.value) < 0.1 and left.low < left.value < left.high
    assert math.isnan(drawn.estimate(NORM, "e", (NORM,)).value)


def test_a_constant_covariate_explains_nothing() -> None:
    score, effect = noise(4, 9, seed=7), noise(4, 9, seed=8)
    drawn = DrawnCorrelations({"s": score, "e": effect, LAYER: layer_table([2] * 9, 4)}, list("abcd"), draws=0)
    torch.testing.assert_close(drawn.given("s", "e", (LAYER,))[0], spearman(score, effect))


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([3, 1000]))
def test_pooled_correlations_of_draws_are_those_of_the_drawn_tables(seed: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randint(0, levels, (2, 4, 7), generator=generator).double()
    pictures = torch.randint(4, (10, 4), generator=generator)
    columns = torch.randint(7, (10, 7), generator=generator)
    found = pooled_of_draws(a, b, pictures, columns)
    plain = [
        spearman(*(side[rows][:, own].flatten()[None] for side in (a, b)))[0]
        for rows, own in zip(pictures, columns, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(plain), equal_nan=True)


def test_pooling_counts_differences_between_pictures() -> None:
    level = 10 * torch.arange(12).double()[:, None]
    score, effect = level + noise(12, 15, seed=9), level + noise(12, 15, seed=10)
    assert abs(float(spearman(score, effect).mean())) < 0.2 and pooled_spearman(score, effect) > 0.9
    found = pooled_estimate(score, effect, list(map(str, range(12))), draws=50)
    assert found.value == pytest.approx(pooled_spearman(score, effect)) and found.low < found.value
