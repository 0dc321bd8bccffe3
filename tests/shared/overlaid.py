"""Tiny pairs of a base and an overlay: what the tests of the overlay study share."""

from dataclasses import replace

from studied import picture, quick

from steerlens.lenses.strength import Strength
from steerlens.studies.overlay.options import OverlayOptions
from steerlens.studies.overlay.pictures import Overlaid, OverlaySet, Placement, paste
from steerlens.studies.shared.settings import LensSetting
from steerlens.zoo.pair import Pair

CENTRE = Placement(0.5, 0.5, 0.5)


def overlaid(number: int, names: tuple[str, ...]) -> Overlaid:
    base, overlay = picture(number), picture(50 + number)
    both = paste(base, overlay, replace(CENTRE, size=0.6))
    concepts = names[number % len(names)], names[(number + 1) % len(names)]
    return Overlaid(f"pair{number}", base, overlay, both, *concepts, CENTRE)


def overlay_set(pair: Pair) -> OverlaySet:
    """Two pairs to select settings on and two to report on, of concepts that the tiny pair knows."""
    assert pair.vocabulary is not None
    made = [overlaid(number, tuple(pair.vocabulary.names)) for number in range(4)]
    return OverlaySet(tuple(made[:2]), tuple(made[2:]), tuple(picture(90 + n) for n in range(4)), "random pictures")


def overlay_options(pair: Pair) -> OverlayOptions:
    """Two settings a lens and one denoising step."""
    return OverlayOptions(
        quick(pair),
        steering=(LensSetting("steering", Strength("rho", 1.0)), LensSetting("steering", Strength("rho", 2.0))),
        diffusion=(LensSetting("diffusion"), LensSetting("diffusion", centred=True)),
        batch=5,
        strips=1,
    )
