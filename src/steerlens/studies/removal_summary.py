"""Every figure of the overlay study, from the parts that it stored and nothing else.

One number per order of heads, over the first quarter of them:

    (A - A_random) / (A_reference - A_random)        A: area of the objective's drop

0 is what random orders reach on average, 1 the greedy reference, which is not the optimum and can be beaten.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.scores import cosine_similarity
from steerlens.studies.attenuation import Attenuation, attenuation, fidelity_table
from steerlens.studies.joint import (
    ATTRIBUTION,
    DIRECT,
    ONE_SHOT,
    RANDOM_ORDERS,
    REFERENCE,
    areas,
    by_score,
    objective,
    projection,
    random_orders,
)
from steerlens.studies.removal import OBJECTIVE, Seen, lens_score, plain_settings, seed_scores, strip_columns
from steerlens.studies.settings import LensSetting
from steerlens.studies.stats import Estimate, two_way_bootstrap

Parts = Sequence[Mapping[str, Tensor]]

RANDOM = f"random (mean of {RANDOM_ORDERS})"
COMPARED = {
    "overlay": "the overlay's picture",
    OBJECTIVE: "the overlay's picture less the base's",
    "text": "the overlay's name",
}
CURVES = ("objective", "similarity with the overlay", "similarity with the base", "projection")


@dataclass(frozen=True)
class RemovalChoice:
    """The setting that a lens goes on with.

    Attributes:
        setting: how the lens makes embeddings.
        compare: what pictures are compared with; see `lens_score`.
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


@dataclass(frozen=True)
class OrderRow:
    """One order of heads.

    Attributes:
        name: of the order.
        area: normalised area with its interval over pairs.
        projection: the same for the projection in place of the objective, by which nothing was ordered.
        drop: mean drop of the objective over the first quarter of the heads.
    """

    name: str
    area: Estimate
    projection: Estimate
    drop: float


@dataclass(frozen=True)
class Curve:
    """A quantity along an order: its mean over pairs at each number of ablated heads, with 95 % intervals.

    Attributes:
        values: the means.
        low: 2.5th percentile of the bootstrap over pairs.
        high: 97.5th percentile.
    """

    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class RemovalSummary:
    """Everything that the overlay study reports.

    Attributes:
        n_pairs: pairs reported on.
        n_heads: N.
        ablation: what replaced a head's write.
        choices: the frozen setting of each lens.
        orders: every order, best first.
        bar: normalised area of the Steering Lens' chosen order.
        difference: the same less that of the Diffusion Lens, paired.
        differences: more of the kind, by name.
        random_range: smallest and largest normalised area among the random orders, each a mean over pairs.
        left: what is left after a quarter of the heads, by order: similarity with overlay and base, of the embedding.
        counts: numbers of ablated heads of the curves.
        curves: each quantity along each order.
        decoded_counts: numbers of ablated heads at which pictures were decoded.
        decoded: the same quantities of those pictures, embedded again, along some orders.
        attenuation: what decoding leaves of the lenses' scores; the effect is that of each head alone.
    """

    n_pairs: int
    n_heads: int
    ablation: str
    choices: Mapping[str, RemovalChoice]
    orders: tuple[OrderRow, ...]
    bar: Estimate
    difference: Estimate
    differences: Mapping[str, Estimate]
    random_range: tuple[float, float]
    left: Mapping[str, Mapping[str, float]]
    counts: tuple[int, ...]
    curves: Mapping[str, Mapping[str, Curve]]
    decoded_counts: tuple[int, ...]
    decoded: Mapping[str, Mapping[str, Curve]]
    attenuation: tuple[Attenuation, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        values = asdict(self)
        values["choices"] = {lens: choice.to_json() for lens, choice in self.choices.items()}
        return values


def candidate_orders(
    part: Mapping[str, Tensor], settings: Sequence[LensSetting], compared: Sequence[str], seed: str
) -> dict[str, list[int]]:
    """On a pair to choose on: the order of every setting and comparison, and random ones.

    Args:
        part: of the pair.
        settings: of both lenses.
        compared: what pictures can be compared with.
        seed: of the random orders; every pair has its own.
    """
    named = {
        f"{setting}|{compare}": by_score(lens_score(part, f"candidate.{setting}", compare))
        for setting in settings
        for compare in compared
    }
    return named | measured_orders(part) | random_orders(len(part["one_shot"]), seed)


def measured_orders(part: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """The orders that effects of ablation give."""
    return {
        ONE_SHOT: by_score(part["one_shot"]),
        REFERENCE: part["greedy"].tolist(),
        ATTRIBUTION: by_score(part["attribution"]),
        DIRECT: by_score(part["direct"]),
    }


def report_orders(part: Mapping[str, Tensor], choices: Mapping[str, RemovalChoice], seed: str) -> dict[str, list[int]]:
    """On a pair to report on: all orders by name."""
    named: dict[str, list[int]] = {}
    ways: dict[Seen, str] = {"made": "", "asked": ", not decoded"}
    if "judged overlay" in part:
        ways["judged"] = ", judged"
    for seen, mark in ways.items():
        for lens, choice in choices.items():
            if seen != "judged" or choice.compare == "overlay":
                score = lens_score(part, str(choice.setting), choice.compare, seen)
                named[f"{lens}, chosen{mark}"] = by_score(score)
        for name, setting in plain_settings().items():
            named[f"{setting.lens}, plain{mark}"] = by_score(lens_score(part, name, "overlay", seen))
    return named | measured_orders(part) | random_orders(len(part["one_shot"]), seed)


def choose(
    parts: Parts, ways: Parts, settings: Sequence[LensSetting], compared: Sequence[str], counts: Sequence[int]
) -> RemovalChoice:
    """The setting and comparison whose order removes the overlay best, on the pairs to choose on.

    It is the drop that decides; the normalised area, which is reported, is undefined where the reference is no better
    than chance.
    """
    names = {(setting, compare): f"{setting}|{compare}" for setting in settings for compare in compared}
    drops = {key: float(area_table(parts, ways, name, counts).mean()) for key, name in names.items()}
    rows = {key: normalised(parts, ways, name, counts) for key, name in names.items()}
    setting, compare = max(drops, key=lambda key: drops[key])
    named = {f"{one}, compared with {other}": value for (one, other), value in rows.items()}
    return RemovalChoice(setting, compare, rows[setting, compare], named)


def area_table(
    parts: Parts, ways: Parts, name: str, counts: Sequence[int], kind: str = "objective"
) -> Float[Tensor, "P"]:
    """The area of the objective's (or another quantity's) drop along one order, pair by pair."""
    if name == RANDOM:
        each = [area_table(parts, ways, f"random {number}", counts, kind) for number in range(RANDOM_ORDERS)]
        return torch.stack(each).mean(dim=0)
    return torch.tensor(
        [areas(_curve(part, way[f"way.{name}"], kind), counts) for part, way in zip(parts, ways, strict=True)]
    )


def normalised(parts: Parts, ways: Parts, name: str, counts: Sequence[int]) -> float:
    """The normalised area over all pairs: a ratio of means, which one pair without a drop cannot spoil."""
    own, chance, best = (area_table(parts, ways, one, counts).mean() for one in (name, RANDOM, REFERENCE))
    return float((own - chance) / (best - chance))


def normalised_estimate(
    parts: Parts,
    ways: Parts,
    name: str,
    counts: Sequence[int],
    *,
    less: str = "",
    kind: str = "objective",
    draws: int = 2000,
) -> Estimate:
    """The normalised area with its interval over pairs; `less` takes another order's away, paired."""
    names = [name, RANDOM, REFERENCE, *([less] if less else [])]
    tables = [area_table(parts, ways, one, counts, kind) for one in names]

    def statistic(pairs: Tensor, _: Tensor) -> Tensor:
        own, chance, best, *other = (table[pairs].mean(dim=1) for table in tables)
        return (own - (other[0] if other else chance)) / (best - chance)

    return two_way_bootstrap(statistic, _one_by_one(parts), 1, draws=draws, heads=False)


def _one_by_one(parts: Parts) -> list[str]:
    """Every pair is drawn by itself."""
    return [str(row) for row in range(len(parts))]


def _curve(part: Mapping[str, Tensor], way: Float[Tensor, "K E"], kind: str) -> Float[Tensor, "K"]:
    if kind == "objective":
        return objective(way, part["base"], part["overlay"], part["mean"])
    if kind == "projection":
        return projection(way, part["base"], part["both"])
    side = part["overlay" if kind.endswith("overlay") else "base"]
    return cosine_similarity(way - part["mean"], side - part["mean"])


def curve(
    parts: Parts, ways: Parts, name: str, kind: str, *, prefix: str = "way", draws: int = 1000, seed: int = 0
) -> Curve:
    """A quantity along an order: mean over pairs, with intervals over pairs.

    Args:
        parts: of the pairs.
        ways: their trajectories.
        name: of the order.
        kind: one of `CURVES`.
        prefix: `way` for the encoder's embeddings, `remade` for those of the decoded pictures.
        draws: bootstrap draws.
        seed: of the draws.
    """
    names = [f"random {number}" for number in range(RANDOM_ORDERS)] if name == RANDOM else [name]
    rows = torch.stack(
        [
            torch.stack([_curve(part, way[f"{prefix}.{one}"], kind) for one in names]).mean(dim=0)
            for part, way in zip(parts, ways, strict=True)
        ]
    ).double()
    generator = torch.Generator().manual_seed(seed)
    drawn = rows[torch.randint(len(rows), (draws, len(rows)), generator=generator)].mean(dim=1)
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    return Curve(*(tuple(side.tolist()) for side in (rows.mean(dim=0), low, high)))


def measured(way: Mapping[str, Tensor], kind: str) -> list[str]:
    """The orders that a part holds `way`, `remade` or `strip` of, by name; files keep no order."""
    return sorted(name.removeprefix(f"{kind}.") for name in way if name.startswith(f"{kind}."))


def summarise(
    parts: Parts,
    ways: Parts,
    choices: Mapping[str, RemovalChoice],
    counts: Sequence[int],
    ablation: str,
    *,
    draws: int = 2000,
) -> RemovalSummary:
    """Everything that the study reports.

    Args:
        parts: of the pairs to report on: scores, effects, orders.
        ways: their trajectories.
        choices: the frozen settings.
        counts: numbers of ablated heads of the trajectories.
        ablation: what replaced a head's write.
        draws: bootstrap draws of the intervals.
    """
    names = [*(name for name in measured(ways[0], "way") if not name.startswith("random ")), RANDOM]
    rows = [
        OrderRow(
            name,
            normalised_estimate(parts, ways, name, counts, draws=draws),
            normalised_estimate(parts, ways, name, counts, kind="projection", draws=draws),
            float(area_table(parts, ways, name, counts).mean()),
        )
        for name in names
    ]
    rows.sort(key=lambda row: (-row.area.value, row.name))
    compared = {
        "steering minus diffusion, chosen": ("steering, chosen", "diffusion, chosen"),
        "steering minus diffusion, plain": ("steering, plain", "diffusion, plain"),
        "steering minus diffusion, chosen, not decoded": (
            "steering, chosen, not decoded",
            "diffusion, chosen, not decoded",
        ),
        "steering, chosen, minus one-shot effect": ("steering, chosen", ONE_SHOT),
        "steering, chosen, minus the same not decoded": ("steering, chosen", "steering, chosen, not decoded"),
    }
    differences = {
        name: normalised_estimate(parts, ways, first, counts, less=second, draws=draws)
        for name, (first, second) in compared.items()
    }
    each = [normalised(parts, ways, f"random {number}", counts) for number in range(RANDOM_ORDERS)]
    curves = {kind: {name: curve(parts, ways, name, kind) for name in names} for kind in CURVES}
    quarter = counts.index(max(1, counts[-1] // 4))
    return RemovalSummary(
        n_pairs=len(parts),
        n_heads=counts[-1],
        ablation=ablation,
        choices=choices,
        orders=tuple(rows),
        bar=next(row.area for row in rows if row.name == "steering, chosen"),
        difference=differences["steering minus diffusion, chosen"],
        differences=differences,
        random_range=(min(each), max(each)),
        left={name: {kind: curves[kind][name].values[quarter] for kind in CURVES} for name in names},
        counts=tuple(counts),
        curves=curves,
        decoded_counts=tuple(counts[place] for place in strip_columns(counts)),
        decoded={
            kind: {name: curve(parts, ways, name, kind, prefix="remade") for name in measured(ways[0], "remade")}
            for kind in CURVES
        },
        attenuation=_attenuation(parts, choices, draws),
    )


def _attenuation(parts: Parts, choices: Mapping[str, RemovalChoice], draws: int) -> tuple[Attenuation, ...]:
    named = {f"{lens}, chosen": (str(choice.setting), choice.compare) for lens, choice in choices.items()}
    named |= {f"{setting.lens}, plain": (name, "overlay") for name, setting in plain_settings().items()}
    effect = torch.stack([part["one_shot"].float() for part in parts])
    found: list[Attenuation] = []
    for name, (setting, compare) in named.items():
        asked = torch.stack([lens_score(part, setting, compare, "asked") for part in parts])
        made = torch.stack([seed_scores(part, setting, compare) for part in parts], dim=1)
        fidelity = fidelity_table(
            torch.stack([part[f"asked.{setting}"] for part in parts]),
            torch.stack([part[f"made.{setting}"] for part in parts], dim=1),
        )
        found.append(attenuation(name, asked, made, effect, fidelity, _one_by_one(parts), draws=draws))
    return tuple(found)


def table_rows(
    parts: Parts, ways: Parts, pairs: Sequence[tuple[str, str, str]], counts: Sequence[int]
) -> list[dict[str, Any]]:
    """One row a pair, order and number of ablated heads.

    Args:
        parts: of the pairs to report on.
        ways: their trajectories.
        pairs: id, base concept and overlay concept of each.
        counts: numbers of ablated heads.
    """
    rows: list[dict[str, Any]] = []
    for part, way, (id, base, overlay) in zip(parts, ways, pairs, strict=True):
        for name in measured(way, "way"):
            curves = {kind: _curve(part, way[f"way.{name}"], kind).tolist() for kind in CURVES}
            rows += [
                {"pair": id, "base": base, "overlay": overlay, "order": name, "ablated": count}
                | {kind: values[place] for kind, values in curves.items()}
                for place, count in enumerate(counts)
            ]
    return rows
