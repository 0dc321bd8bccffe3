"""Statistics of the studies: identities for any table, and intervals that contain what they should."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steerlens.studies.shared.stats import (
    correlation_estimate,
    difference_estimate,
    estimate_of,
    interaction,
    interaction_pearson,
    mean_correlation,
    mismatched,
    of_draws,
    pearson,
    ranks,
    ratio_estimate,
    seed_reliability,
    spearman,
    take,
    two_way_bootstrap,
    within_layers,
    without_means,
)

tables = st.builds(
    lambda rows, columns, seed, levels: torch.randint(
        0, levels, (rows, columns), generator=torch.Generator().manual_seed(seed)
    ).double(),
    st.integers(2, 6),
    st.integers(3, 12),
    st.integers(0, 10_000),
    st.sampled_from([2, 3, 1000]),
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(tables)
def test_ranks_count_the_smaller_ones_and_half_of_the_equal_ones(table: Tensor) -> None:
    plain = [
        [sum(other < value for other in row) + (sum(other == value for other in row) - 1) / 2 for value in row]
        for row in table.tolist()
    ]
    torch.testing.assert_close(ranks(table), torch.tensor(plain, dtype=torch.float64))


@given(tables, st.integers(0, 1000))
def test_correlations_are_numpys(table: Tensor, seed: int) -> None:
    other = noise(*table.shape, seed=seed)
    for row, (a, b) in enumerate(zip(table, other, strict=True)):
        if a.std() == 0:
            assert math.isnan(float(pearson(table, other)[row]))
            continue
        assert float(pearson(table, other)[row]) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-9)
        by_rank = np.corrcoef(ranks(a[None])[0], ranks(b[None])[0])[0, 1]
        assert float(spearman(table, other)[row]) == pytest.approx(by_rank, abs=1e-9)


@given(tables)
def test_ranks_know_nothing_of_monotone_maps(table: Tensor) -> None:
    other = noise(*table.shape)
    torch.testing.assert_close(spearman(table, other), spearman(table**3 - 1, other), equal_nan=True)


@given(tables)
def test_no_mean_is_left(table: Tensor) -> None:
    left = without_means(table)
    torch.testing.assert_close(left.mean(dim=0), torch.zeros(table.shape[1]).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(left.mean(dim=1), torch.zeros(table.shape[0]).double(), atol=1e-9, rtol=0)


def test_a_score_that_only_knows_big_heads_is_exposed() -> None:
    """Head means alone: a high correlation, the same with other pictures' effects, and nothing without head means."""
    heads = noise(40, seed=1)
    effect = heads + 0.3 * noise(30, 40, seed=2)
    score = heads + 0.3 * noise(30, 40, seed=3)
    assert mean_correlation(score, effect) > 0.8
    assert mismatched(score, effect) > 0.8
    assert abs(mean_correlation(score, effect, interaction)) < 0.1


def test_a_score_that_knows_pictures_survives() -> None:
    own = noise(30, 40, seed=4)
    score, effect = own + 0.3 * noise(30, 40, seed=5), own + 0.3 * noise(30, 40, seed=6)
    assert mean_correlation(score, effect, interaction) > 0.8
    assert abs(mismatched(score, effect)) < 0.1


def test_layers_that_differ_explain_nothing_within_a_layer() -> None:
    layers = [head // 8 for head in range(40)]
    level = torch.tensor(layers).double() * 10
    score, effect = level + noise(20, 40, seed=7), level + noise(20, 40, seed=8)
    assert mean_correlation(score, effect) > 0.9
    assert abs(mean_correlation(score, effect, within_layers(layers))) < 0.1
    torch.testing.assert_close(within_layers(layers)(effect, effect), torch.ones(20).double())


@pytest.mark.parametrize(("signal", "level", "expected"), [(0.0, 10.0, 0.0), (1.0, 0.0, 1.0), (0.8, 10.0, 0.6)])
def test_intervals_within_layers_contain_the_estimate(signal: float, level: float, expected: float) -> None:
    """A pure effect of layers, one that is within layers alone, and both: no drawn head may change its layer."""
    layers = [head // 6 for head in range(72)]
    own, base = noise(40, 72, seed=21), torch.tensor(layers).double() * level
    rest = (1 - signal**2) ** 0.5
    score, effect = (base + signal * own + rest * noise(40, 72, seed=seed) for seed in (22, 23))
    concepts = [f"c{row}" for row in range(40)]
    found = correlation_estimate(score, effect, concepts, correlation=within_layers(layers), draws=300)
    assert found.value == pytest.approx(expected, abs=0.08)
    assert found.low - 1e-9 <= found.value <= found.high + 1e-9 and found.high - found.low < 0.15
    same = difference_estimate(score, score, effect, concepts, correlation=within_layers(layers), draws=50)
    assert (same.low, same.value, same.high) == (0, 0, 0)
    share = ratio_estimate(effect, effect, effect, concepts, correlation=within_layers(layers), draws=50)
    assert share.low == pytest.approx(1) == share.high


@given(seed=st.integers(0, 10_000), layered=st.booleans())
def test_rank_correlations_of_draws_are_those_of_the_drawn_tables(seed: int, layered: bool) -> None:
    """The short way of `of_draws` against the definition: ties, heads drawn twice, layers of any size, constants."""
    generator = torch.Generator().manual_seed(seed)
    layers = [0, 2, 0, 1, 1, 0, 2, 2, 1, 0]
    a, b = torch.randn(2, 6, 10, generator=generator)
    a[:, ::2], b[1] = a[:, ::2].round(), 1.0
    pictures = torch.randint(6, (40, 6), generator=generator)
    columns = torch.randint(10, (40, 10), generator=generator)
    correlation = spearman
    if layered:
        correlation = within_layers(layers)
        own = [torch.tensor([place for place, one in enumerate(layers) if one == layer]) for layer in layers]
        columns = torch.stack([places[torch.randint(len(places), (40,), generator=generator)] for places in own], dim=1)
    short = of_draws(correlation, a, b, pictures, columns)
    torch.testing.assert_close(
        short, correlation(take(a, pictures, columns), take(b, pictures, columns)), equal_nan=True
    )
    assert short.isnan().any() and not short.isnan().all()


def test_a_share_of_nothing_is_undefined() -> None:
    score = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    assert math.isnan(ratio_estimate(score, -score, score, list("abcde"), draws=20).value)
    assert ratio_estimate(score, score, score, list("abcde"), draws=20).value == 1


def test_a_share_has_an_interval_only_if_its_ceiling_is_shown_to_be_above_0() -> None:
    drawn = torch.linspace(0.5, 1.5, 1000, dtype=torch.float64)
    few, many = drawn.clone(), drawn.clone()
    few[:20], many[:30] = float("nan"), float("nan")
    assert estimate_of(1.0, few, ratio=True) == estimate_of(1.0, few) and not math.isnan(estimate_of(1.0, few).low)
    assert math.isnan(estimate_of(1.0, many, ratio=True).low) and not math.isnan(estimate_of(1.0, many).low)
    # A ceiling that hangs on few pictures and heads may be 0 on others: the share is a number without an interval.
    generator = torch.Generator().manual_seed(2)
    effect = torch.randn(6, 12, generator=generator)
    ceiling = 0.15 * effect + torch.randn(6, 12, generator=generator)
    concepts = list("abcdef")
    most, share = (
        correlation_estimate(ceiling, effect, concepts, draws=200),
        ratio_estimate(effect, ceiling, effect, concepts, draws=200),
    )
    assert most.value > 0 > most.low and share.value == pytest.approx(1 / most.value)
    assert math.isnan(share.low) and not share.above() and not share.excludes_zero


def test_layers_in_any_order_and_of_any_size_keep_their_heads() -> None:
    layers = [2, 0, 0, 1, 2, 2, 1, 0, 0]
    seen: list[Tensor] = []

    def statistic(pictures: Tensor, columns: Tensor) -> Tensor:
        seen.append(columns)
        return torch.zeros(len(columns))

    two_way_bootstrap(statistic, ["a", "b"], len(layers), draws=60, layers=layers)
    drawn = torch.cat(seen)
    known = torch.tensor(layers)
    assert torch.equal(known[drawn], known.expand_as(drawn)) and len(drawn.unique(dim=0)) > 40


def test_pearson_after_removing_means_is_numpys() -> None:
    a, b = noise(6, 9, seed=31), noise(6, 9, seed=32)
    found = interaction_pearson(a, b)
    for row in range(6):
        plain = np.corrcoef(without_means(a)[row], without_means(b)[row])[0, 1]
        assert float(found[row]) == pytest.approx(plain, abs=1e-9)


def test_intervals_contain_the_estimate_and_tell_noise_from_signal() -> None:
    own = noise(24, 30, seed=9)
    score = own + noise(24, 30, seed=10)
    concepts = [f"c{row // 2}" for row in range(24)]
    real = correlation_estimate(score, own, concepts, draws=300)
    assert real.low < real.value < real.high and real.excludes_zero
    chance = correlation_estimate(noise(24, 30, seed=11), own, concepts, draws=300)
    assert not chance.excludes_zero
    assert correlation_estimate(score, own, concepts, draws=300) == real  # the same seed, the same interval
    alone = correlation_estimate(score, own, concepts, draws=300, heads=False)
    assert alone.value == real.value and alone.high - alone.low < real.high - real.low


def test_paired_differences_are_sharper_than_two_intervals() -> None:
    own = noise(24, 30, seed=12)
    good, worse = own + 0.5 * noise(24, 30, seed=13), own + 1.0 * noise(24, 30, seed=14)
    concepts = [f"c{row}" for row in range(24)]
    difference = difference_estimate(good, worse, own, concepts, draws=300)
    assert difference.excludes_zero and difference.value > 0
    assert difference_estimate(good, good, own, concepts, draws=100).value == 0
    assert ratio_estimate(good, good, own, concepts, draws=100).low == pytest.approx(1)


def test_reliability_of_a_repeated_score_is_one_and_of_noise_none() -> None:
    own = noise(20, 30, seed=15)
    assert seed_reliability(torch.stack([own, own])) == (pytest.approx(1), pytest.approx(1))
    single, whole = seed_reliability(torch.stack([own + noise(20, 30, seed=16), own + noise(20, 30, seed=17)]))
    assert 0.3 < single < 0.7 and whole == pytest.approx(2 * single / (1 + single))
    assert math.isnan(seed_reliability(own[None])[0])
    opposite = seed_reliability(torch.stack([own, -own]))
    assert opposite[0] == pytest.approx(-1) and math.isnan(opposite[1])
