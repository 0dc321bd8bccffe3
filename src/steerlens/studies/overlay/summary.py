"""Every figure of the overlay study, from the parts that it stored and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from steerlens.studies.overlay.areas import (
    CURVES,
    RANDOM,
    Curve,
    Parts,
    area_table,
    curve,
    measured,
    normalised,
    normalised_estimate,
    one_by_one,
    quantity,
)
from steerlens.studies.overlay.measure import judged_compare, lens_score, plain_settings, seed_scores, strip_columns
from steerlens.studies.overlay.orders import COMPARED, JUDGED, LENSES, SAME, UNDECODED, RemovalChoice
from steerlens.studies.shared.attenuation import Attenuation, attenuation, fidelity_table
from steerlens.studies.shared.joint import ONE_SHOT, RANDOM_ORDERS
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.scores import PUBLISHED_NAME
from steerlens.studies.shared.stats import Estimate


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
class RemovalSummary:
    """Everything that the overlay study reports.

    Attributes:
        n_pairs: pairs reported on.
        n_concepts: the fewer of the concepts that their bases and that their overlays show.
        n_chosen: pairs to choose on.
        n_heads: N.
        ablation: what replaced a head's write.
        choices: the frozen setting of each lens, and of each lens without decoding.
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
        judge: the outside judge, or None.
        judged_by: what the judge compared each lens' chosen pictures with, in words; empty without a judge.
        note: what should be heard of the pictures; mostly empty.
        command: what was run, if it was a command.
    """

    n_pairs: int
    n_concepts: int
    n_chosen: int
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
    judge: JudgeName | None = None
    judged_by: Mapping[str, str] = field(default_factory=dict[str, str])
    note: str = ""
    command: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        values = asdict(self)
        values["choices"] = {lens: choice.to_json() for lens, choice in self.choices.items()}
        return values


def summarise(
    parts: Parts,
    ways: Parts,
    choices: Mapping[str, RemovalChoice],
    counts: Sequence[int],
    ablation: str,
    *,
    n_concepts: int,
    n_chosen: int,
    judge: JudgeName | None = None,
    note: str = "",
    command: str = "",
    draws: int = 2000,
) -> RemovalSummary:
    """Everything that the study reports.

    Args:
        parts: of the pairs to report on: scores, effects, orders.
        ways: their trajectories.
        choices: the frozen settings.
        counts: numbers of ablated heads of the trajectories.
        ablation: what replaced a head's write.
        n_concepts: the fewer of the concepts among bases and among overlays.
        n_chosen: pairs to choose on.
        judge: the outside judge, if there was one.
        note: what should be heard of the pictures.
        command: what was run.
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
    lenses = [("chosen", ""), ("plain", ""), ("chosen", UNDECODED), ("chosen", JUDGED), ("plain", JUDGED)]
    compared = {
        f"steering minus diffusion, {how}{seen}": (f"steering, {how}{seen}", f"diffusion, {how}{seen}")
        for how, seen in lenses
    }
    compared[f"{PUBLISHED_NAME}, minus diffusion, plain"] = (PUBLISHED_NAME, "diffusion, plain")
    compared |= {
        f"steering, chosen, minus {what}": ("steering, chosen", second)
        for what, second in (
            ("one-shot effect", ONE_SHOT),
            ("the same not decoded", f"steering, chosen{SAME}"),
            ("the same judged", f"steering, chosen{JUDGED}"),
        )
    }
    differences = {
        name: normalised_estimate(parts, ways, first, counts, less=second, draws=draws)
        for name, (first, second) in compared.items()
        if second in names
    }
    each = [normalised(parts, ways, f"random {number}", counts) for number in range(RANDOM_ORDERS)]
    curves = {kind: {name: curve(parts, ways, name, kind) for name in names} for kind in CURVES}
    quarter = counts.index(max(1, counts[-1] // 4))
    return RemovalSummary(
        n_pairs=len(parts),
        n_concepts=n_concepts,
        n_chosen=n_chosen,
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
        judge=judge,
        judged_by={} if judge is None else {lens: COMPARED[judged_compare(choices[lens].compare)] for lens in LENSES},
        note=note,
        command=command,
    )


def _attenuation(parts: Parts, choices: Mapping[str, RemovalChoice], draws: int) -> tuple[Attenuation, ...]:
    named = {f"{lens}, chosen": (str(choices[lens].setting), choices[lens].compare) for lens in LENSES}
    named |= {name: (str(setting), "overlay") for name, setting in plain_settings().items()}
    effect = torch.stack([part["one_shot"].float() for part in parts])
    found: list[Attenuation] = []
    for name, (setting, compare) in named.items():
        asked = torch.stack([lens_score(part, setting, compare, "asked") for part in parts])
        made = torch.stack([seed_scores(part, setting, compare) for part in parts], dim=1)
        fidelity = fidelity_table(
            torch.stack([part[f"asked.{setting}"] for part in parts]),
            torch.stack([part[f"made.{setting}"] for part in parts], dim=1),
        )
        found.append(attenuation(name, asked, made, effect, fidelity, one_by_one(parts), draws=draws))
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
            curves = {kind: quantity(part, way[f"way.{name}"], kind).tolist() for kind in CURVES}
            rows += [
                {"pair": id, "base": base, "overlay": overlay, "order": name, "ablated": count}
                | {kind: values[place] for kind, values in curves.items()}
                for place, count in enumerate(counts)
            ]
    return rows
