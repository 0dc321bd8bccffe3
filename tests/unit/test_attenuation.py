"""What decoding leaves of a score: against plain loops, and the sentences that the page makes of it."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from steerlens.studies.attenuation import Attenuation, attenuation, fidelity_table
from steerlens.studies.folder import rounded
from steerlens.studies.page_findings import importance_findings, overlay_findings

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
    assert found.asked.value == pytest.approx(mean_spearman(asked, effect), abs=1e-6)
    assert found.made.value == pytest.approx(mean_spearman(scores.mean(dim=0), effect), abs=1e-6)
    assert found.passed_on.value == pytest.approx(mean_spearman(scores.mean(dim=0), asked), abs=1e-6)
    assert found.expected == pytest.approx(found.asked.value * found.passed_on.value)
    assert found.fidelity.value == pytest.approx(0.4) and found.spread_made > found.spread_asked


def test_noise_that_knows_nothing_multiplies_correlations_and_seed_noise_can_be_taken_out() -> None:
    found = told(1.5)
    assert found.made.value == pytest.approx(found.expected, abs=0.06)
    # noise of single seeds goes away with many of them; noise that all seeds share does not
    assert found.without_noise == pytest.approx(found.asked.value, abs=0.08)
    shared = told(0.3, shared=2.0)
    assert shared.without_noise == pytest.approx(shared.made.value, abs=0.03)
    assert shared.without_noise < 0.6 * shared.asked.value
    assert math.isnan(told(1.0, seeds=1).without_noise)


def test_fidelity_is_a_mean_over_seeds() -> None:
    asked = torch.tensor([[[1.0, 0.0]]])
    embeddings = torch.tensor([[[[2.0, 0.0]]], [[[0.0, 3.0]]]])
    torch.testing.assert_close(fidelity_table(asked, embeddings), torch.tensor([[0.5]]))


def estimate(value: float, half: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def test_the_page_says_where_a_ranking_is_lost_and_only_then() -> None:
    summary: dict[str, Any] = {
        "attenuation": [rounded(asdict(told(0.3, shared=3.0)))],
        "differences": {"chosen; spearman": estimate(0.0), "chosen, not decoded; spearman": estimate(0.1)},
        "ceiling_share": {"chosen, not decoded": estimate(0.95)},
    }
    first, second, third = importance_findings(summary)
    assert "**not found** (+0.00 [-0.05, +0.05], which includes 0)" in first
    assert "**found** (+0.10 [+0.05, +0.15])" in second and "+0.95" in second
    assert third.startswith("Why: the ranking is in the embedding") and "More seeds would not mend it" in third
    summary["attenuation"] = [rounded(asdict(told(0.0)))]
    assert len(importance_findings(summary)) == 2
    summary["differences"]["chosen; spearman"] = estimate(-0.2)
    assert "**the reverse was found**" in importance_findings(summary)[0]


@pytest.mark.parametrize(("area", "words"), [(0.02, "no better than"), (0.3, "but far from"), (0.9, "close to")])
def test_the_page_says_how_an_order_does(area: float, words: str) -> None:
    names = ("steering, chosen", "steering, chosen, not decoded", "exact direct effect")
    summary = {
        "attenuation": [rounded(asdict(told(0.0)))],
        "orders": [{"name": name, "area": estimate(area)} for name in names],
        "random_range": [-0.03, 0.03],
        "difference": estimate(0.02),
    }
    assert words in overlay_findings(summary)[0]
