"""Figures of the overlay study as data: orders of heads, their areas and trajectories."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from steerlens.errors import StoreError
from steerlens.studies.overlay.areas import Curve
from steerlens.studies.overlay.orders import OrderChoice
from steerlens.studies.shared.attenuation import Attenuation
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.records import Record, StudySummary
from steerlens.studies.shared.stats import Estimate


@dataclass(frozen=True)
class OrderRow(Record):
    """An order of heads.

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
class OverlaySummary(StudySummary):
    """Everything that the overlay study reports.

    Attributes:
        n_pairs: pairs reported on.
        n_concepts: the fewer of the concepts that their bases and that their overlays show.
        n_chosen: pairs of the selection.
        n_heads: N.
        ablation: what replaced a head's write.
        choices: the frozen setting of each lens, and of each lens without decoding.
        orders: every order, best first.
        bar: normalised area of the Steering Lens' chosen order.
        difference: the same minus that of the Diffusion Lens, paired.
        differences: further paired differences, by name.
        random_range: smallest and largest normalised area among the random orders, each a mean over pairs.
        left: quantities that are left after a quarter of the heads, by order.
        counts: numbers of ablated heads of the curves.
        curves: each quantity along each order.
        decoded_counts: numbers of ablated heads at which pictures were decoded.
        decoded: the same quantities of those pictures, embedded again, along some orders.
        attenuation: the lenses' scores before and after decoding; the effect is that of each head alone.
        judge: the outside judge, or None.
        judged_by: the judge's comparison of each lens' chosen pictures, in words; empty without a judge.
        note: a warning about the pictures; usually empty.
        command: the command that was run, or nothing.
    """

    n_pairs: int
    n_concepts: int
    n_chosen: int
    n_heads: int
    ablation: str
    choices: Mapping[str, OrderChoice]
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

    def area(self, name: str) -> Estimate:
        """The normalised area of an order.

        Raises:
            StoreError: if it was not measured.
        """
        for row in self.orders:
            if row.name == name:
                return row.area
        raise StoreError(f"the summary of the overlay study holds no order {name!r}.")
