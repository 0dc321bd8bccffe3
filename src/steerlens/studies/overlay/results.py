"""Results of the overlay study as data: orders of heads, their areas and trajectories."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from steerlens.errors import StoreError
from steerlens.studies.overlay.areas import CURVES, Curve
from steerlens.studies.overlay.conclusion import overlay_conclusion
from steerlens.studies.overlay.joint import DIRECT, ONE_SHOT
from steerlens.studies.overlay.orders import UNDECODED, OrderChoice, chosen_order, is_decoded_order
from steerlens.studies.overlay.scores import COMPARISONS
from steerlens.studies.shared.attenuation import Attenuation
from steerlens.studies.shared.candidates import LENSES
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.records import Key, Record, StudySummary
from steerlens.studies.shared.remainder import Remainder
from steerlens.studies.shared.stats import Estimate, caution

CHOSEN_DIFFERENCE = "steering minus diffusion, chosen"
"""Name of the paired difference of the lenses' chosen orders."""

UNDECODED_DIFFERENCE = f"{CHOSEN_DIFFERENCE}{UNDECODED}"
ONE_SHOT_DIFFERENCE = f"{chosen_order('steering')}, minus {ONE_SHOT}"

UNDECODED_ONE_SHOT = f"{chosen_order('steering', UNDECODED)}, minus {ONE_SHOT}"

UNDECODED_NEEDED = (UNDECODED_DIFFERENCE, UNDECODED_ONE_SHOT)
"""The same in a study without a decoder."""

NEEDED_DIFFERENCES = (CHOSEN_DIFFERENCE, UNDECODED_DIFFERENCE, ONE_SHOT_DIFFERENCE)
"""Differences on which the findings give a verdict."""

_NEEDED_ORDERS = (*(chosen_order(lens, ending) for lens in LENSES for ending in ("", UNDECODED)), DIRECT, ONE_SHOT)


@dataclass(frozen=True)
class OrderRow(Record):
    """Figures of an order of heads.

    Attributes:
        name: name of the order.
        area: normalised area of the objective, over pairs.
        projection: normalised area of the projection, which no order uses.
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
        n_pairs: number of reported pairs.
        n_concepts: number of concepts of their bases or of their overlays, whichever is smaller.
        n_selection: number of pairs of the selection.
        n_heads: N.
        ablation: replacement of a head's write.
        choices: frozen setting of each lens, and of each lens without decoding.
        orders: figures of every order, the best first.
        bar: normalised area of the Steering Lens' chosen order; not decoded in a study without a decoder.
        difference: paired difference of that area from the Diffusion Lens'.
        differences: further paired differences, by name.
        random_range: smallest and largest normalised area of single random orders.
        left: each quantity after ablation of a quarter of the heads, by order.
        counts: numbers of ablated heads of the curves.
        curves: each quantity along each order.
        decoded_counts: numbers of ablated heads at which pictures were decoded; empty without a decoder.
        decoded: the same quantities of those pictures, embedded again, along some orders.
        attenuation: the lenses' scores before and after decoding; the effect is that of each head alone.
        judge: the outside judge, or None.
        judged_by: the judge's comparison of each lens' chosen pictures, in words; empty without a judge.
        note: a warning about the pictures; usually empty.
        command: the command, or empty.
        model: name of the pair; empty in summaries of earlier versions.
        retained: normalised area of each order along which heads were retained; empty in earlier versions.
        retained_curves: each quantity along these orders.
        n_groups: number of groups of pairs that share no concept with pairs of other groups; -1 in earlier versions.
        components: `heads`, or `features` of a sparse autoencoder.
        sae: the autoencoder in words; empty for heads.
        remainders: drops of the objective when the error and the bias of the autoencoder are ablated alone; empty for
            heads, and in summaries of earlier versions.
    """

    n_pairs: int
    n_concepts: int
    n_selection: Annotated[int, Key("n_chosen")]
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
    model: str = ""
    retained: Mapping[str, Estimate] = field(default_factory=dict[str, Estimate])
    retained_curves: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict[str, Mapping[str, Curve]])
    components: str = "heads"
    sae: str = ""
    remainders: tuple[Remainder, ...] = ()
    n_groups: int = -1

    @property
    def caution(self) -> str:
        """Warning if the bootstrap drew from few pairs that have nothing in common; otherwise empty."""
        if 0 <= self.n_groups < self.n_concepts:
            return caution(self.n_groups, "groups of pairs without a common concept")
        return caution(self.n_concepts)

    @property
    def decodes(self) -> bool:
        """False of a study of requested embeddings alone (--no-decoder)."""
        return bool(self.decoded_counts)

    def conclusion_words(self) -> dict[str, Any]:
        """The conclusion as JSON values."""
        words = overlay_conclusion(self)
        return {} if words is None else words.to_json()

    def missing(self) -> Iterator[str]:
        """Entries that the page needs and the summary lacks, in words."""
        orders, attenuated = {row.name for row in self.orders}, {row.score for row in self.attenuation}
        needed = [name for name in _NEEDED_ORDERS if self.decodes or not is_decoded_order(name)]
        yield from (f"the order {name!r}" for name in needed if name not in orders)
        differences = NEEDED_DIFFERENCES if self.decodes else UNDECODED_NEEDED
        yield from (f"the difference {name!r}" for name in differences if name not in self.differences)
        if self.decodes and (steering := chosen_order("steering")) not in attenuated:
            yield f"the attenuation of {steering!r}"
        for curves in (self.curves, self.decoded):
            yield from (f"the curves of the {kind}" for kind in CURVES if kind not in curves)
        yield from (
            f"a known comparison of {lens!r}"
            for lens, choice in self.choices.items()
            if choice.compare not in COMPARISONS
        )

    def area(self, name: str) -> Estimate:
        """Normalised area of an order.

        Raises:
            StoreError: if it was not measured.
        """
        for row in self.orders:
            if row.name == name:
                return row.area
        raise StoreError(f"the summary of the overlay study holds no order {name!r}.")
