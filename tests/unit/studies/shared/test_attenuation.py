"""What decoding leaves of a score: against plain loops, and the sentences that the page makes of it."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import Tensor

from steerlens.studies.importance.findings import claim, lost, overlay_findings
from steerlens.studies.shared.attenuation import Attenuation, attenuation, fidelity_table
from steerlens.studies.shared.folder import rounded

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
    (words,) = lost(rounded(asdict(told(0.3, shared=3.0))), "the effect", ", a remark")
    assert "with the effect: the ranking is in the embedding asked for (+" in words and "], a remark) and is" in words
    assert "the larger is lost by the decoder itself" in words
    assert lost(rounded(asdict(told(0.0))), "the effect") == []
    below = rounded(asdict(told(0.3, shared=3.0))) | {"asked": estimate(-0.1, 0.02), "made": estimate(-0.5)}
    assert lost(below, "the effect") == []
    row = rounded(asdict(told(2.5)))
    assert row["without_noise"] >= row["asked"]["low"] > row["made"]["high"]
    (words,) = lost(row, "the effect")
    assert "more seeds might mend most of it" in words and "itself" not in words
    assert "seeds" not in lost(row | {"without_noise": None}, "the effect")[0]
    # partly lost is not lost
    assert "partly lost" in lost(row | {"made": estimate(0.2)}, "the effect")[0]
    assert "partly" not in lost(row | {"made": estimate(0.02)}, "the effect")[0]


@pytest.mark.parametrize(
    ("difference", "own", "verdict"),
    [
        (0.2, 0.3, "**found**"),
        (0.2, 0.03, "**not found**; the difference lies above 0, but the Steering Lens' own figure does not"),
        (0.2, -0.3, "**not found**; the difference lies above 0, but"),
        (0.01, 0.3, "**not found**; the difference includes 0"),
        (-0.2, 0.3, "**the reverse was found**"),
        (-0.2, -0.3, "**not found**; the difference lies below 0, and neither"),
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
    assert "**found in part**; the Steering Lens tells more" in claim("It alone tells", *both, alone=True)
    assert "**found**" in claim("It tells more", *both)
    assert "**found**" in claim("It alone tells", estimate(0.3), estimate(0.3), estimate(0.0), alone=True)


@pytest.mark.parametrize(
    ("overlap", "words"),
    [(-0.5, "**not found**; its area is smaller"), (0.01, "**not contradicted**"), (0.5, "**surpassed**")],
)
def test_the_page_says_how_an_order_does(overlap: float, words: str) -> None:
    areas = {
        "steering, chosen": 0.3,
        "diffusion, chosen": 0.28,
        "steering, chosen, not decoded": 0.5,
        "diffusion, chosen, not decoded": 0.4,
        "exact direct effect": 0.8,
        "one-shot effect": 0.9,
    }
    summary = {
        "attenuation": [rounded(asdict(told(0.0)))],
        "orders": [{"name": name, "area": estimate(area)} for name, area in areas.items()],
        "random_range": [-0.03, 0.03],
        "difference": estimate(0.02),
        "differences": {
            "steering, chosen, minus one-shot effect": estimate(overlap),
            "steering minus diffusion, chosen, not decoded": estimate(0.1),
        },
    }
    clear, found, lens, before, most = overlay_findings(summary)
    assert before.startswith("The same before decoding") and "**found**" in before
    assert "of which no lens of direct contributions can know more" in most
    areas["exact direct effect"] = 0.3
    less = overlay_findings(summary | {"orders": [{"name": n, "area": estimate(area)} for n, area in areas.items()]})
    assert "can know more" not in less[-1]
    assert "clear of random orders" in clear and words in found and "one-shot" not in clear
    assert "ACDC-like order" in found and "**not found**; the difference includes 0" in lens
