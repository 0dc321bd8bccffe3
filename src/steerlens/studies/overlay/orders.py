"""Orders of heads in the overlay study, and the choice of each lens' setting.

Each lens' setting is chosen twice from the same candidates, once by decoded pictures and once by requested embeddings,
so that undecoded orders show the best that a lens can do without a decoder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from steerlens.studies.overlay.areas import RANDOM, Trajectories
from steerlens.studies.overlay.joint import ATTRIBUTION, DIRECT, ONE_SHOT, REFERENCE, by_score, random_orders
from steerlens.studies.overlay.parts import OverlayPart
from steerlens.studies.overlay.scores import (
    COMPARISONS,
    OVERLAY,
    judged_comparison,
    lens_score,
    untuned_settings,
)
from steerlens.studies.shared.candidates import CHOSEN, LENSES, ONE_FACTOR_NAME, candidate_name, candidate_words
from steerlens.studies.shared.measurements import View
from steerlens.studies.shared.partial import LAYER, NORM
from steerlens.studies.shared.records import Record
from steerlens.studies.shared.settings import LensSetting

CHANGE = "norm of the change from the base"
"""Order by the norm of `h - h(base)`, the part of a head's write that the overlay causes; it needs no lens."""

RETAINED_RANDOM = 5
"""Number of random orders along which heads are also retained."""

UNDECODED, SAME, JUDGED = ", not decoded", ", the same not decoded", ", judged"
"""Endings of an order's name: by requested embeddings, with the setting chosen for them; by requested embeddings, with
the setting chosen for decoded pictures; by pictures embedded by the judge."""


def chosen_order(lens: str, ending: str = "") -> str:
    """Name of the order by a lens' chosen setting."""
    return f"{lens}, {CHOSEN}{ending}"


def is_decoded_order(name: str) -> bool:
    """True of an order that a lens gives by decoded pictures, which a study without a decoder lacks."""
    of_lens = name.startswith((*LENSES, ONE_FACTOR_NAME))
    return of_lens and not name.endswith(UNDECODED)


@dataclass(frozen=True)
class OrderChoice(Record):
    """Chosen setting of a lens.

    Attributes:
        setting: the setting.
        compare: comparison of pictures, or embeddings; one of `COMPARISONS`.
        area: normalised area on the pairs of the selection.
        candidates: the same for every candidate, by name.
    """

    setting: LensSetting
    compare: str
    area: float
    candidates: Mapping[str, float]

    def __str__(self) -> str:
        return candidate_words(self.setting, COMPARISONS[self.compare])


@dataclass(frozen=True)
class _Candidate:
    """An order of the selection; its text form names its trajectory on disk."""

    setting: LensSetting
    compare: str
    view: View

    def __str__(self) -> str:
        return f"{self.setting}|{self.compare}" + ("" if self.view == "decoded" else "|asked")

    def order(self, part: OverlayPart) -> list[int]:
        return by_score(lens_score(part, candidate_name(self.setting), self.compare, self.view))


def candidate_orders(
    part: OverlayPart,
    settings: Sequence[LensSetting],
    compared: Sequence[str],
    seed: str,
    views: Sequence[View] = ("decoded", "requested"),
) -> dict[str, list[int]]:
    """Orders on a pair of the selection: by every setting and comparison, decoded and undecoded, and random orders.

    Args:
        part: measurements of the pair.
        settings: settings of both lenses.
        compared: comparisons that every pair allows.
        seed: seed of the random orders; every pair has its own.
        views: embeddings that are compared; without a decoder, `requested` alone.
    """
    candidates = [_Candidate(setting, compare, view) for setting in settings for compare in compared for view in views]
    named = {str(candidate): candidate.order(part) for candidate in candidates}
    return named | measured_orders(part) | random_orders(len(part.one_shot), seed)


def measured_orders(part: OverlayPart) -> dict[str, list[int]]:
    """Orders by effects of ablation."""
    return {
        ONE_SHOT: by_score(part.one_shot),
        REFERENCE: part.greedy.tolist(),
        ATTRIBUTION: by_score(part.first_order),
        DIRECT: by_score(part.direct),
    }


def report_orders(
    part: OverlayPart, choices: Mapping[str, OrderChoice], seed: str, layers: Sequence[int] = ()
) -> dict[str, list[int]]:
    """All orders on a pair to report on, by name.

    Args:
        part: measurements of the pair.
        choices: choice of each lens, and of each lens without decoding; the latter alone in a study without a decoder.
        seed: seed of the random orders; every pair has its own.
        layers: layer of each head.
    """
    judged = part.judges is not None
    named: dict[str, list[int]] = {}

    def add(name: str, setting: LensSetting, compare: str, view: View) -> None:
        named[name] = by_score(lens_score(part, setting, compare, view))

    for lens in LENSES:
        decoded, undecoded = choices.get(lens), choices[f"{lens}{UNDECODED}"]
        add(chosen_order(lens, UNDECODED), undecoded.setting, undecoded.compare, "requested")
        if decoded is None:
            continue
        add(chosen_order(lens), decoded.setting, decoded.compare, "decoded")
        add(chosen_order(lens, SAME), decoded.setting, decoded.compare, "requested")
        if judged:
            add(chosen_order(lens, JUDGED), decoded.setting, judged_comparison(decoded.compare), "judged")
    for name, setting in untuned_settings().items():
        if LENSES[0] in choices:
            add(name, setting, OVERLAY, "decoded")
        add(f"{name}{UNDECODED}", setting, OVERLAY, "requested")
        if judged:
            add(f"{name}{JUDGED}", setting, OVERLAY, "judged")
    return named | measured_orders(part) | baseline_orders(part, layers) | random_orders(len(part.one_shot), seed)


def baseline_orders(part: OverlayPart, layers: Sequence[int]) -> dict[str, list[int]]:
    """Orders that need no lens: by norms and by layer, later layers first; empty for parts of earlier versions."""
    if part.norm is None or part.change is None:
        return {}
    return {
        NORM: by_score(part.norm),
        CHANGE: by_score(part.change),
        LAYER: by_score(torch.tensor(layers, dtype=torch.float32)),
    }


def retained_name(name: str) -> str:
    """Name of an order along which heads are retained: fewer random orders were measured."""
    return f"random (mean of {RETAINED_RANDOM})" if name == RANDOM else name


def retained_orders() -> tuple[str, ...]:
    """Names of the orders along which heads are also retained."""
    lenses = [chosen_order(lens, ending) for lens in LENSES for ending in ("", UNDECODED)]
    plain = [f"{name}{ending}" for name in untuned_settings() for ending in ("", UNDECODED)]
    random = [f"random {number}" for number in range(RETAINED_RANDOM)]
    return (*lenses, *plain, ONE_SHOT, REFERENCE, DIRECT, NORM, CHANGE, LAYER, *random)


def choose(
    trajectories: Trajectories,
    settings: Sequence[LensSetting],
    compared: Sequence[str],
    view: View = "decoded",
) -> OrderChoice:
    """Chooses the setting and comparison whose order removes the overlay best, on the pairs of the selection.

    The drop decides, since the normalised area is undefined if the reference is no better than chance.
    """
    candidates = [_Candidate(setting, compare, view) for setting in settings for compare in compared]
    drops = {candidate: float(trajectories.areas(str(candidate)).mean()) for candidate in candidates}
    areas = {candidate: trajectories.normalised(str(candidate)) for candidate in candidates}
    best = max(drops, key=lambda candidate: drops[candidate])
    named = {candidate_words(candidate.setting, candidate.compare): value for candidate, value in areas.items()}
    return OrderChoice(best.setting, best.compare, areas[best], named)


def choose_all(
    trajectories: Trajectories,
    candidates: Mapping[str, Sequence[LensSetting]],
    compared: Sequence[str],
    *,
    decodes: bool = True,
) -> dict[str, OrderChoice]:
    """Chooses for each lens from the same candidates: by decoded pictures if there are any, and by embeddings."""
    decoded = {lens: choose(trajectories, settings, compared) for lens, settings in candidates.items() if decodes}
    return decoded | {
        f"{lens}{UNDECODED}": choose(trajectories, settings, compared, "requested")
        for lens, settings in candidates.items()
    }
