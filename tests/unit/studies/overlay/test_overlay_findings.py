"""Sentences on what the overlay study found; which is printed depends on the figures alone."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from steerlens.studies.overlay.findings import overlay_findings
from steerlens.studies.shared.stats import Estimate


def estimate(value: float, half: float = 0.05) -> Estimate:
    return Estimate(value, value - half, value + half)


def findings(overlap: float, direct: float) -> list[str]:
    areas = {
        "steering, chosen": 0.3,
        "diffusion, chosen": 0.28,
        "steering, chosen, not decoded": 0.5,
        "diffusion, chosen, not decoded": 0.4,
        "exact direct effect": direct,
        "one-shot effect": 0.9,
    }
    agreeing = SimpleNamespace(score="steering, chosen", requested=estimate(0.2), decoded=estimate(0.2))
    summary: Any = SimpleNamespace(
        decodes=True,
        area=lambda name: estimate(areas[name]),
        model="made",
        attenuation=[agreeing],
        random_range=(-0.03, 0.03),
        difference=estimate(0.02),
        differences={
            "steering, chosen, minus one-shot effect": estimate(overlap),
            "steering minus diffusion, chosen, not decoded": estimate(0.1),
        },
    )
    return [finding.text for finding in overlay_findings(summary)]


@pytest.mark.parametrize(
    ("overlap", "words"),
    [(-0.5, "**not found** on made; its area is smaller"), (0.01, "**not contradicted**"), (0.5, "**surpassed**")],
)
def test_the_page_says_how_an_order_does(overlap: float, words: str) -> None:
    clear, found, lens, before, most = findings(overlap, 0.8)
    assert before.startswith("The same before decoding") and "**found** on made" in before
    assert "the limit of a lens of direct contributions" in most
    assert "the limit" not in findings(overlap, 0.3)[-1]
    assert "better than 20 random orders" in clear and words in found and "one-shot" not in clear
    assert "ACDC-like order" in found and "**not found** on made; the difference includes 0" in lens


def test_an_undefined_overlap_contradicts_nothing() -> None:
    assert "**not contradicted**" in findings(math.nan, 0.8)[1]
