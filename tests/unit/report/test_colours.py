"""Colour scales stay readable without full colour vision: an order by lightness, and two ends that differ.

References: Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
IEEE Transactions on Visualization and Computer Graphics 15(6), 2009: the matrices of severity 1.
"""

import numpy as np
import pytest

from steerlens.report.colours import DIVERGING, SEQUENTIAL, colour

VISION = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}

RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = RGB_TO_XYZ.sum(axis=1)


def seen(colours: list[str], vision: str) -> np.ndarray:
    """Colours as CIELAB (lightness from 0 to 100, and two axes of hue), as an eye of that vision sees them."""
    srgb = np.array([[int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)] for text in colours])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ np.array(VISION[vision]).T, 0, 1) @ RGB_TO_XYZ.T / WHITE
    roots = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * roots[:, 1] - 16, 500 * (roots[:, 0] - roots[:, 1]), 200 * (roots[:, 1] - roots[:, 2])], 1)


@pytest.mark.parametrize("vision", VISION)
def test_larger_values_are_darker(vision: str) -> None:
    steps = np.diff(seen([colour(value, 0, 1) for value in np.linspace(0, 1, 11)], vision)[:, 0])
    assert (steps < -2.3).all(), "each tenth of the scale is visibly darker than the one before"


@pytest.mark.parametrize("vision", VISION)
def test_both_sides_of_zero_darken_and_differ(vision: str) -> None:
    values = np.linspace(0, 1, 21)
    sides = [seen([colour(sign * value, -1, 1, DIVERGING) for value in values], vision) for sign in (-1, 1)]
    for side in sides:
        assert (np.diff(side[:, 0]) < 0).all(), "farther from zero is darker"
    # A distance of 10 between two areas is seen at a glance; closer to zero, a minus sign stands in the cell.
    apart = np.linalg.norm(sides[0] - sides[1], axis=1)
    assert (apart[values >= 0.25] > 10).all()


def test_the_tests_see_what_is_confused() -> None:
    """Red and green of one lightness differ for full vision, and hardly for deuteranopes."""
    red_green = ["#d0021b", "#4a7a00"]
    assert np.linalg.norm(np.diff(seen(red_green, "full"), axis=0)) > 80
    assert np.linalg.norm(np.diff(seen(red_green, "deuteranopia"), axis=0)) < 40
    assert len(SEQUENTIAL) == len(DIVERGING) == 9
