"""Summary of the overlay study, computed from its stored parts alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from steerlens.sites import Site
from steerlens.studies.overlay.areas import CURVES, PROJECTION_CURVE, Trajectories, quantity, random_name
from steerlens.studies.overlay.joint import ONE_SHOT, RANDOM_ORDERS
from steerlens.studies.overlay.measure import strip_columns
from steerlens.studies.overlay.orders import CHANGE, JUDGED, SAME, UNDECODED, OrderChoice, chosen_order
from steerlens.studies.overlay.results import (
    CHOSEN_DIFFERENCE,
    NEEDED_DIFFERENCES,
    UNDECODED_DIFFERENCE,
    UNDECODED_NEEDED,
    OrderRow,
    OverlaySummary,
)
from steerlens.studies.overlay.scores import (
    COMPARISONS,
    OVERLAY,
    judged_comparison,
    lens_score,
    seed_scores,
    untuned_settings,
)
from steerlens.studies.shared.attenuation import Attenuation, attenuation, fidelity_table
from steerlens.studies.shared.candidates import LENSES, ONE_FACTOR_NAME
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.partial import NORM
from steerlens.studies.shared.remainder import Remainder, remainders_of
from steerlens.studies.shared.stats import Estimate


@dataclass(frozen=True)
class OverlaySetup:
    """Options and pictures of the study that its summary repeats.

    Attributes:
        ablation: replacement of a head's write.
        n_concepts: number of concepts of bases or of overlays, whichever is smaller.
        n_selection: number of pairs of the selection.
        n_groups: number of groups of pairs that share no concept with pairs of other groups; -1 if unknown.
        judge: the outside judge, or None.
        note: a warning about the pictures, or empty.
        command: the command.
        model: name of the pair.
        components: `heads`, or `features` of a sparse autoencoder.
        sae: the autoencoder in words; empty for heads.
        remainders: its error and its bias.
    """

    ablation: str
    n_concepts: int
    n_selection: int
    n_groups: int = -1
    judge: JudgeName | None = None
    note: str = ""
    command: str = ""
    model: str = ""
    components: str = "heads"
    sae: str = ""
    remainders: tuple[Site, ...] = ()


def summarise(
    trajectories: Trajectories, choices: Mapping[str, OrderChoice], setup: OverlaySetup, *, draws: int = 2000
) -> OverlaySummary:
    """Computes everything that the study reports.

    Args:
        trajectories: trajectories of the pairs to report on.
        choices: the frozen settings.
        setup: options and pictures that the summary repeats.
        draws: bootstrap draws of the intervals.

    Raises:
        StoreError: if a part lacks an order that the page needs.
    """
    names, counts = trajectories.orders, trajectories.counts
    decodes = LENSES[0] in choices
    rows = [
        OrderRow(
            name,
            trajectories.normalised_estimate(name, draws=draws),
            trajectories.normalised_estimate(name, kind=PROJECTION_CURVE, draws=draws),
            float(trajectories.areas(name).mean()),
        )
        for name in names
    ]
    rows.sort(key=lambda row: (-row.area.value, row.name))
    needed = NEEDED_DIFFERENCES if decodes else UNDECODED_NEEDED
    differences = _differences(trajectories, names, draws, needed)
    each = [trajectories.normalised(random_name(number)) for number in range(RANDOM_ORDERS)]
    curves = {kind: {name: trajectories.curve(name, kind) for name in names} for kind in CURVES}
    decoded_orders = sorted(trajectories.trajectories[0].decoded)
    quarter = list(counts).index(max(1, counts[-1] // 4))
    retaining = trajectories.retaining()
    kept_orders = retaining.orders if retaining is not None else []
    judged_by: dict[str, str] = {}
    if setup.judge is not None:
        judged_by = {lens: COMPARISONS[judged_comparison(choices[lens].compare)] for lens in LENSES}
    return OverlaySummary(
        n_pairs=len(trajectories.parts),
        n_concepts=setup.n_concepts,
        n_selection=setup.n_selection,
        n_groups=setup.n_groups,
        n_heads=counts[-1],
        ablation=setup.ablation,
        choices=choices,
        orders=tuple(rows),
        bar=next(row.area for row in rows if row.name == chosen_order("steering", "" if decodes else UNDECODED)),
        difference=differences[CHOSEN_DIFFERENCE if decodes else UNDECODED_DIFFERENCE],
        differences=differences,
        random_range=(min(each), max(each)),
        left={name: {kind: curves[kind][name].values[quarter] for kind in CURVES} for name in names},
        counts=tuple(counts),
        curves=curves,
        decoded_counts=tuple(counts[place] for place in strip_columns(counts)) if decodes else (),
        decoded={
            kind: {name: trajectories.curve(name, kind, decoded=True) for name in decoded_orders} for kind in CURVES
        },
        attenuation=_attenuation(trajectories, choices, draws) if decodes else (),
        judge=setup.judge,
        judged_by=judged_by,
        note=setup.note,
        command=setup.command,
        model=setup.model,
        components=setup.components,
        sae=setup.sae,
        remainders=_remainders(trajectories, setup.remainders, draws),
        retained={}
        if retaining is None
        else {name: retaining.normalised_estimate(name, draws=draws) for name in kept_orders},
        retained_curves={}
        if retaining is None
        else {kind: {name: retaining.curve(name, kind) for name in kept_orders} for kind in CURVES},
    )


def _remainders(trajectories: Trajectories, sites: Sequence[Site], draws: int) -> tuple[Remainder, ...]:
    rows = [part.remainder for part in trajectories.parts]
    own = [row.float() for row in rows if row is not None]
    if not sites or len(own) < len(rows):
        return ()
    features = torch.stack([part.one_shot.float() for part in trajectories.parts])
    return remainders_of(sites, torch.stack(own), features, trajectories.pair_names, draws)


def _differences(
    trajectories: Trajectories, names: Sequence[str], draws: int, needed: Sequence[str]
) -> dict[str, Estimate]:
    """Paired differences of areas, between the lenses and between the Steering Lens and other orders.

    Those that are needed are computed in any case, and fail if an order is missing.
    """
    compared = {
        f"steering minus diffusion, {kind}{ending}": (f"steering, {kind}{ending}", f"diffusion, {kind}{ending}")
        for kind, ending in (
            ("chosen", ""),
            ("plain", ""),
            ("chosen", UNDECODED),
            ("chosen", JUDGED),
            ("plain", JUDGED),
        )
    }
    compared[f"{ONE_FACTOR_NAME}, minus diffusion, plain"] = (ONE_FACTOR_NAME, "diffusion, plain")
    steering = chosen_order("steering")
    compared |= {
        f"{steering}, minus {what}": (steering, other)
        for what, other in (
            (ONE_SHOT, ONE_SHOT),
            ("the same not decoded", chosen_order("steering", SAME)),
            ("the same judged", chosen_order("steering", JUDGED)),
            (CHANGE, CHANGE),
            (NORM, NORM),
        )
    }
    undecoded = chosen_order("steering", UNDECODED)
    # In a study without a decoder, the order of true single effects is compared with undecoded orders.
    against = (CHANGE, NORM) if chosen_order("steering") in names else (CHANGE, NORM, ONE_SHOT)
    compared |= {f"{undecoded}, minus {other}": (undecoded, other) for other in against}
    compared[f"steering minus diffusion, plain{UNDECODED}"] = (
        f"steering, plain{UNDECODED}",
        f"diffusion, plain{UNDECODED}",
    )
    return {
        name: trajectories.normalised_estimate(first, less=second, draws=draws)
        for name, (first, second) in compared.items()
        if {first, second} <= set(names) or name in needed
    }


def _attenuation(trajectories: Trajectories, choices: Mapping[str, OrderChoice], draws: int) -> tuple[Attenuation, ...]:
    parts = trajectories.parts
    named = {chosen_order(lens): (choices[lens].setting, choices[lens].compare) for lens in LENSES}
    named |= {name: (setting, OVERLAY) for name, setting in untuned_settings().items()}
    effect = torch.stack([part.one_shot.float() for part in parts])
    rows: list[Attenuation] = []
    for name, (setting, compare) in named.items():
        requested = torch.stack([lens_score(part, setting, compare, "requested") for part in parts])
        decoded = torch.stack([seed_scores(part, setting, compare) for part in parts], dim=1)
        fidelity = fidelity_table(
            torch.stack([part.requested[str(setting)] for part in parts]),
            torch.stack([part.decoded[str(setting)] for part in parts], dim=1),
        )
        rows.append(attenuation(name, requested, decoded, effect, fidelity, trajectories.pair_names, draws=draws))
    return tuple(rows)


def table_rows(trajectories: Trajectories, pairs: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Rows of the study's table, one per pair, order and number of ablated heads.

    Args:
        trajectories: trajectories of the pairs to report on.
        pairs: id, base concept and overlay concept of each pair.
    """
    rows: list[dict[str, Any]] = []
    measured = zip(trajectories.parts, trajectories.trajectories, pairs, strict=True)
    for part, trajectory, (id, base, overlay) in measured:
        for name in trajectory.orders:
            curves = {kind: quantity(part, trajectory.embeddings[name], kind).tolist() for kind in CURVES}
            rows += [
                {"pair": id, "base": base, "overlay": overlay, "order": name, "ablated": count}
                | {kind: values[place] for kind, values in curves.items()}
                for place, count in enumerate(trajectories.counts)
            ]
    return rows
