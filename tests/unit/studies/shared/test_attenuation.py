"""Attenuation of scores by decoding, compared with plain loops, and the sentences of the page about it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from steerlens.studies.shared.attenuation import Attenuation, attenuation, fidelity_table
from steerlens.studies.shared.markdown import claim, lost
from steerlens.studies.shared.stats import Estimate

P, N = 24, 40


def made(noise: float, seeds: int = 2, shared: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """An effect, a score that knows it well, and what seeds make of that score."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    effect = draw(P, N)
    asked = effect + 0.5 * draw(P, N)
    return effect, asked, asked + shared * draw(P, N) + noise * draw(seeds, P, N)


def ranked(values: Tensor) -> np.ndarray:
    return values.argsort().argsort().double().numpy()


def mean_spearman(a: Tensor, b: Tensor) -> float:
    return float(np.mean([np.corrcoef(ranked(one), ranked(other))[0, 1] for one, other in zip(a, b, strict=True)]))


def told(noise: float, seeds: int = 2, shared: float = 0.0, score: str = "steering, chosen") -> Attenuation:
    effect, asked, scores = made(noise, seeds, shared)
    return attenuation(score, asked, scores, effect, torch.full((P, N), 0.4), [str(n) for n in range(P)], draws=50)


def test_correlations_are_those_of_plain_loops() -> None:
    effect, asked, scores = made(1.0)
    found = told(1.0)
    assert found.requested.value == pytest.approx(mean_spearman(asked, effect), abs=1e-6)
    assert found.decoded.value == pytest.approx(mean_spearman(scores.mean(dim=0), effect), abs=1e-6)
    assert found.agreement.value == pytest.approx(mean_spearman(scores.mean(dim=0), asked), abs=1e-6)
    assert found.expected == pytest.approx(found.requested.value * found.agreement.value)
    assert found.fidelity.value == pytest.approx(0.4) and found.spread_decoded > found.spread_requested


def test_noise_that_knows_nothing_multiplies_correlations_and_seed_noise_can_be_taken_out() -> None:
    found = told(1.5)
    assert found.decoded.value == pytest.approx(found.expected, abs=0.06)
    # noise of single seeds goes away with many of them; noise that all seeds share does not
    assert found.without_noise == pytest.approx(found.requested.value, abs=0.08)
    shared = told(0.3, shared=2.0)
    assert shared.without_noise == pytest.approx(shared.decoded.value, abs=0.03)
    assert shared.without_noise < 0.6 * shared.requested.value
    assert math.isnan(told(1.0, seeds=1).without_noise)


def test_fidelity_is_a_mean_over_seeds() -> None:
    asked = torch.tensor([[[1.0, 0.0]]])
    embeddings = torch.tensor([[[[2.0, 0.0]]], [[[0.0, 3.0]]]])
    torch.testing.assert_close(fidelity_table(asked, embeddings), torch.tensor([[0.5]]))


def estimate(value: float, half: float = 0.05) -> Estimate:
    return Estimate(value, value - half, value + half)


def test_the_page_says_where_a_ranking_is_lost_and_only_then() -> None:
    (words,) = lost(told(0.3, shared=3.0), "the effect", ", a remark")
    assert "over heads with the effect is +" in words and "] for the requested embedding, a remark, and +" in words
    assert "the decoder causes the larger part" in words
    assert lost(told(0.0), "the effect") == []
    below = replace(told(0.3, shared=3.0), requested=estimate(-0.1, 0.02), decoded=estimate(-0.5))
    assert lost(below, "the effect") == []
    row = told(2.5)
    assert row.without_noise >= row.requested.low > row.decoded.high
    (words,) = lost(row, "the effect")
    assert "more seeds might recover most of the loss" in words and "the decoder causes" not in words
    assert "seeds" not in lost(replace(row, without_noise=math.nan), "the effect")[0]
    assert "loses part of the ranking" in lost(replace(row, decoded=estimate(0.2)), "the effect")[0]
    assert "loses the ranking" in lost(replace(row, decoded=estimate(0.02)), "the effect")[0]


@pytest.mark.parametrize(
    ("difference", "own", "verdict"),
    [
        (0.2, 0.3, "**found**"),
        (0.2, 0.03, "**not found**; the difference lies above 0, but the Steering Lens' figure does not"),
        (0.2, -0.3, "**not found**; the difference lies above 0, but"),
        (0.01, 0.3, "**not found**; the difference includes 0"),
        (-0.2, 0.3, "**the reverse was found**"),
        (-0.2, -0.3, "**not found**; the difference lies below 0, but the Diffusion Lens' figure is not"),
    ],
)
def test_a_claim_asks_for_the_difference_and_for_the_lens_own_figure(
    difference: float, own: float, verdict: str
) -> None:
    words = claim("It tells", estimate(difference), estimate(own), estimate(own - difference))
    assert words.startswith(f"It tells: {verdict}")
    assert f"Steering Lens {own:+.2f} [" in words and f"paired difference {difference:+.2f} [" in words


def test_a_lens_that_tells_it_too_is_not_said_to_tell_hardly_anything() -> None:
    both = (estimate(0.2), estimate(0.5), estimate(0.3))
    assert "**found in part**; the Steering Lens does better" in claim("It alone tells", *both, alone=True)
    assert "**found**" in claim("It tells more", *both)
    assert "**found**" in claim("It alone tells", estimate(0.3), estimate(0.3), estimate(0.0), alone=True)
