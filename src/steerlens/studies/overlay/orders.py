"""Orders of heads in the overlay study: all that compete, and the choice of each lens' setting.

A lens chooses twice from the same candidates: once by its decoded pictures, once by the embeddings asked for. An
undecoded order is so the best that can be had without a decoder, not what decoded pictures left to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from steerlens.studies.overlay.areas import Parts, area_table, normalised
from steerlens.studies.overlay.measure import OBJECTIVE, Seen, judged_compare, lens_score, plain_settings
from steerlens.studies.shared.joint import ATTRIBUTION, DIRECT, ONE_SHOT, REFERENCE, by_score, random_orders
from steerlens.studies.shared.settings import LensSetting

COMPARED = {
    "overlay": "the overlay's picture",
    OBJECTIVE: "the overlay's picture less the base's",
    "text": "the overlay's name",
}
LENSES = ("steering", "diffusion")
UNDECODED, SAME, JUDGED = ", not decoded", ", the same not decoded", ", judged"
"""What is added to an order's name: its own choice by embeddings asked for; the decoded choice's; as the judge sees."""


@dataclass(frozen=True)
class RemovalChoice:
    """The setting that a lens goes on with.

    Attributes:
        setting: how the lens makes embeddings.
        compare: what pictures, or embeddings, are compared with; see `lens_score`.
        area: normalised area on the pairs to choose on.
        candidates: the same for everything it chose from, by name.
    """

    setting: LensSetting
    compare: str
    area: float
    candidates: Mapping[str, float]

    def __str__(self) -> str:
        return f"{self.setting}, compared with {COMPARED[self.compare]}"

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "setting": str(self.setting)}


def candidate_orders(
    part: Mapping[str, Tensor], settings: Sequence[LensSetting], compared: Sequence[str], seed: str
) -> dict[str, list[int]]:
    """On a pair to choose on: the order of every setting and comparison, decoded and not, and random ones.

    Args:
        part: of the pair.
        settings: of both lenses.
        compared: what pictures can be compared with.
        seed: of the random orders; every pair has its own.
    """
    seen: tuple[Seen, ...] = ("made", "asked")
    named = {
        _candidate(setting, compare, kind): by_score(lens_score(part, f"candidate.{setting}", compare, kind))
        for setting in settings
        for compare in compared
        for kind in seen
    }
    return named | measured_orders(part) | random_orders(len(part["one_shot"]), seed)


def _candidate(setting: LensSetting, compare: str, seen: Seen) -> str:
    return f"{setting}|{compare}" + ("" if seen == "made" else f"|{seen}")


def measured_orders(part: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """The orders that effects of ablation give."""
    return {
        ONE_SHOT: by_score(part["one_shot"]),
        REFERENCE: part["greedy"].tolist(),
        ATTRIBUTION: by_score(part["attribution"]),
        DIRECT: by_score(part["direct"]),
    }


def report_orders(part: Mapping[str, Tensor], choices: Mapping[str, RemovalChoice], seed: str) -> dict[str, list[int]]:
    """On a pair to report on: all orders by name.

    Args:
        part: of the pair.
        choices: of each lens, and of each lens without decoding.
        seed: of the random orders; every pair has its own.
    """
    judged = "judge.overlay" in part
    named: dict[str, list[int]] = {}

    def add(name: str, setting: str, compare: str, seen: Seen) -> None:
        named[name] = by_score(lens_score(part, setting, compare, seen))

    for lens in LENSES:
        made, asked = choices[lens], choices[f"{lens}{UNDECODED}"]
        add(f"{lens}, chosen", str(made.setting), made.compare, "made")
        add(f"{lens}, chosen{UNDECODED}", str(asked.setting), asked.compare, "asked")
        add(f"{lens}, chosen{SAME}", str(made.setting), made.compare, "asked")
        if judged:
            add(f"{lens}, chosen{JUDGED}", str(made.setting), judged_compare(made.compare), "judged")
    for name, setting in plain_settings().items():
        add(name, str(setting), "overlay", "made")
        add(f"{name}{UNDECODED}", str(setting), "overlay", "asked")
        if judged:
            add(f"{name}{JUDGED}", str(setting), "overlay", "judged")
    return named | measured_orders(part) | random_orders(len(part["one_shot"]), seed)


def choose(
    parts: Parts,
    ways: Parts,
    settings: Sequence[LensSetting],
    compared: Sequence[str],
    counts: Sequence[int],
    seen: Seen = "made",
) -> RemovalChoice:
    """The setting and comparison whose order removes the overlay best, on the pairs to choose on.

    It is the drop that decides; the normalised area, which is reported, is undefined where the reference is no better
    than chance.
    """
    names = {(setting, compare): _candidate(setting, compare, seen) for setting in settings for compare in compared}
    drops = {key: float(area_table(parts, ways, name, counts).mean()) for key, name in names.items()}
    rows = {key: normalised(parts, ways, name, counts) for key, name in names.items()}
    setting, compare = max(drops, key=lambda key: drops[key])
    named = {f"{one}, compared with {other}": value for (one, other), value in rows.items()}
    return RemovalChoice(setting, compare, rows[setting, compare], named)


def choose_all(
    parts: Parts,
    ways: Parts,
    candidates: Mapping[str, Sequence[LensSetting]],
    compared: Sequence[str],
    counts: Sequence[int],
) -> dict[str, RemovalChoice]:
    """Both choices of each lens, decoded and not, from the same candidates."""
    decoded = {lens: choose(parts, ways, settings, compared, counts) for lens, settings in candidates.items()}
    return decoded | {
        f"{lens}{UNDECODED}": choose(parts, ways, settings, compared, counts, "asked")
        for lens, settings in candidates.items()
    }
