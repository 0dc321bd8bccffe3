"""Typicality against plain loops, and samples of heads that have their share of every layer."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from studied import noise

from steerlens.errors import UsageError
from steerlens.scores import share_beaten
from steerlens.sites import Site, all_heads
from steerlens.studies.shared.sampling import stratified_heads
from steerlens.studies.shared.typicality import fit_typicality, percentile, spread


def ledoit_wolf(rows: np.ndarray) -> tuple[np.ndarray, float]:
    """The shrunk covariance, term by term as in the paper."""
    centred = rows - rows.mean(axis=0)
    K, E = centred.shape
    covariance = centred.T @ centred / K
    level = np.trace(covariance) / E
    apart = ((covariance - level * np.eye(E)) ** 2).sum()
    noise = sum(((np.outer(row, row) - covariance) ** 2).sum() for row in centred) / K**2
    weight = min(noise, apart) / apart
    return (1 - weight) * covariance + weight * level * np.eye(E), weight


@pytest.mark.parametrize("shape", [(40, 6), (9, 20)])
def test_the_spread_is_ledoit_and_wolfs(shape: tuple[int, int]) -> None:
    rows = noise(*shape) * torch.linspace(0.2, 2, shape[1]) + 3
    covariance, weight = ledoit_wolf(rows.numpy())
    found = spread(rows)
    assert found.weight == pytest.approx(weight, rel=1e-9)
    probes = noise(5, shape[1], seed=1) + 3
    for probe, distance in zip(probes, found.distance(probes), strict=True):
        away = probe.numpy() - rows.numpy().mean(axis=0)
        assert float(distance) == pytest.approx(math.sqrt(away @ np.linalg.inv(covariance) @ away), rel=1e-6)


def test_the_nulls_leave_each_reference_out() -> None:
    rows = noise(12, 5)
    found = fit_typicality(rows)
    nearest, mahalanobis = [], []
    for place in range(12):
        others = np.delete(rows.numpy(), place, axis=0)
        own = rows[place].numpy()
        cosines = [own @ other / np.linalg.norm(own) / np.linalg.norm(other) for other in others]
        nearest.append(1 - max(cosines))
        away = own - others.mean(axis=0)
        mahalanobis.append(math.sqrt(away @ np.linalg.inv(ledoit_wolf(others)[0]) @ away))
    np.testing.assert_allclose(found.nearest_null, sorted(nearest), rtol=1e-9)
    np.testing.assert_allclose(found.mahalanobis_null, sorted(mahalanobis), rtol=1e-5)


@given(st.integers(8, 30), st.integers(1, 12), st.integers(0, 1000))
def test_references_fill_their_own_percentiles_evenly(count: int, size: int, seed: int) -> None:
    """Each of K distinct null distances lies at (k - 1/2) / K of them."""
    null = noise(count, seed=seed).sort().values
    torch.testing.assert_close(percentile(null, null), 100 * (torch.arange(count).double() + 0.5) / count)
    found = fit_typicality(noise(count, size + 1, seed=seed))
    for own in (found.nearest_null, found.mahalanobis_null):
        assert float(percentile(own, own).mean()) == pytest.approx(50)  # ties included


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.lists(st.integers(-1, 6), min_size=1, max_size=5))
def test_percentiles_are_shares_beaten(null: list[int], values: list[int]) -> None:
    ordered = torch.tensor(sorted(null), dtype=torch.float64)
    found = percentile(torch.tensor(values, dtype=torch.float64), ordered)
    assert found.tolist() == pytest.approx([100 * share_beaten(value, ordered) for value in values])


def test_what_is_far_is_atypical_and_what_is_real_is_not() -> None:
    rows = noise(60, 8) * 0.3 + torch.ones(8)
    found = fit_typicality(rows[:40])
    assert float(found.nearest(-torch.ones(8))) == 100 and float(found.mahalanobis(-torch.ones(8))) == 100
    for percentiles in (found.nearest(rows[40:]), found.mahalanobis(rows[40:])):
        assert percentiles.shape == (20,) and 20 < float(percentiles.mean()) < 80
    # a reference itself is at no distance from the set
    assert float(found.nearest(rows[0])) < 100 / 40


def test_references_that_tell_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 8 reference pictures"):
        fit_typicality(noise(7, 3))
    with pytest.raises(UsageError, match="all the same"):
        fit_typicality(torch.ones(9, 3))


@given(st.integers(1, 7), st.integers(1, 6), st.integers(2, 50), st.integers(0, 100))
def test_samples_of_heads_have_their_share_of_every_layer(layers: int, heads: int, count: int, seed: int) -> None:
    sites = all_heads(layers, heads)
    found = stratified_heads(sites, count, seed)
    assert found == sorted(set(found)) and len(found) == min(count, len(sites))
    per_layer = [sum(sites[place].layer == layer for place in found) for layer in range(layers)]
    assert max(per_layer) - min(per_layer) <= 1
    assert found == stratified_heads(sites, count, seed)


def test_a_sample_is_chance_and_never_a_single_head() -> None:
    sites = all_heads(3, 8)
    assert len({tuple(stratified_heads(sites, 6, seed)) for seed in range(5)}) > 1
    assert stratified_heads(sites, None, 0) == list(range(24))
    uneven = [Site("head", 0, 0), *(Site("head", 1, head) for head in range(5))]
    assert 0 in stratified_heads(uneven, 2, 3)
    with pytest.raises(UsageError, match="at least 2 heads"):
        stratified_heads(sites, 1, 0)
