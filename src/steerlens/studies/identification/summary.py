"""Summary of the identification study, computed from its stored parts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steerlens.lenses import Strength
from steerlens.studies.identification.measure import DIFFUSION
from steerlens.studies.identification.results import Identification, IdentificationSummary
from steerlens.studies.identification.scores import LENSES, STEERING, Contest, Identified, wins
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.measurements import View
from steerlens.studies.shared.sampling import head_variance, widened
from steerlens.studies.shared.stats import Estimate, two_way_bootstrap
from steerlens.studies.shared.targets import INPUT

BOOTSTRAP = {
    False: "bootstrap over concepts, of inputs and of other pictures alike; against random directions, widened by the "
    "spread of heads",
    True: "bootstrap over concepts, of inputs and of other pictures alike, widened by the spread of heads, of which a "
    "sample was studied",
}
"""The bootstrap in words, by whether the studied heads are a sample."""


def summarise(
    identified: Identified,
    *,
    n_heads: int,
    strength: Strength,
    seeds: Sequence[int],
    judge: JudgeName | None = None,
    command: str = "",
    model: str = "",
) -> IdentificationSummary:
    """Computes everything that the study reports.

    Args:
        identified: the measurements.
        n_heads: number of the encoder's heads.
        strength: strength of the own write.
        seeds: seeds of the decoder.
        judge: the outside judge, or None.
        command: the command, for the page of results.
        model: name of the pair.
    """
    left_out = 1 - len(identified.sites) / n_heads
    intervals = _Intervals(identified, left_out)
    rows = tuple(
        identification(identified, lens, view, compare, left_out)
        for lens in LENSES
        for view in identified.views
        for compare in identified.compared
    )
    view = identified.views[0]
    own, alone = (identified.contest(lens, view, INPUT) for lens in (STEERING, DIFFUSION))
    share = own.share()
    return IdentificationSummary(
        n_pictures=len(identified.parts),
        n_concepts=len(set(identified.concepts)),
        n_heads=n_heads,
        layers=_layers(identified),
        n_studied=len(identified.sites),
        n_foils=len(identified.foils[0]),
        strength=str(strength),
        seeds=() if view == "requested" else tuple(seeds),
        rows=rows,
        heads={site.label: float(share[:, column].mean()) for column, site in enumerate(identified.sites)},
        fidelity=None if view == "requested" else intervals.mean(identified.fidelity()),
        difference=intervals.difference(own, alone),
        judge=judge,
        command=command,
        model=model,
        bootstrap=BOOTSTRAP[left_out > 0],
    )


def identification(identified: Identified, lens: str, view: View, compare: str, left_out: float) -> Identification:
    """Results of one lens with one kind of embeddings; `left_out`: share of heads that were not studied."""
    intervals, layers = _Intervals(identified, left_out), _layers(identified)
    contest, control = identified.contest(lens, view, compare), identified.control(lens, view, compare)
    return Identification(
        lens,
        view,
        compare,
        intervals.share(contest),
        tuple(intervals.share(contest, layer) for layer in layers),
        None if control is None else intervals.against(contest.own, control),
        None if control is None else intervals.foils_against(contest, control),
        intervals.mean(contest.rank()),
        _as_share(intervals.mean(contest.first())),
        contest.candidates,
        () if control is None else tuple(intervals.against(contest.own, control, layer) for layer in layers),
    )


class _Intervals:
    """Estimates of means over pictures and heads; intervals by a bootstrap over concepts, widened by a sample of heads.

    A drawn picture serves as an input and, where every picture is a foil, as a source of foils: shares of the same
    pictures are no independent comparisons. The spread of heads is added if the studied heads are a sample of the
    encoder's, and for comparisons with random directions in any case, since each head has one random direction.

    Args:
        identified: the measurements.
        left_out: share of the encoder's heads that were not studied.
    """

    def __init__(self, identified: Identified, left_out: float) -> None:
        self._identified, self._left_out = identified, left_out

    def share(self, contest: Contest, layer: int | None = None) -> Estimate:
        """Share of foils to which the own is closer, over all heads or those of a layer."""
        sides = [_Compared(contest.won, contest.counts, contest.all_pairs)]
        return _as_share(self._estimate(sides, layer, self._left_out))

    def difference(self, first: Contest, second: Contest) -> Estimate:
        """Paired difference of two shares."""
        sides = [_Compared(side.won, side.counts, side.all_pairs) for side in (first, second)]
        return self._estimate(sides, None, self._left_out)

    def against(self, own: Float[Tensor, "P n"], control: Float[Tensor, "P n"], layer: int | None = None) -> Estimate:
        """Share of pictures and heads that are closer to the input than their random direction."""
        return _as_share(self._estimate([_Compared.of_table(wins(own, control))], layer, 1.0))

    def foils_against(self, contest: Contest, control: Float[Tensor, "P n"]) -> Estimate:
        """Share of foils that are closer to the input than the random direction."""
        table = wins(contest.foils, control[:, None])
        return _as_share(self._estimate([_Compared(table, contest.counts, contest.all_pairs)], None, 1.0))

    def mean(self, table: Float[Tensor, "P n"]) -> Estimate:
        """Mean of a table over pictures and heads."""
        return self._estimate([_Compared.of_table(table)], None, self._left_out)

    def _estimate(self, sides: "Sequence[_Compared]", layer: int | None, left_out: float) -> Estimate:
        """Mean of the first side, less that of the second if there is one."""
        layers = self._identified.layers
        columns = [place for place, own in enumerate(layers) if layer is None or own == layer]
        means = [side.table[..., columns].double().mean(dim=-1) for side in sides]

        def statistic(pictures: Tensor, _: Tensor) -> Tensor:
            own, *other = (side.mean(table, pictures) for side, table in zip(sides, means, strict=True))
            return own - other[0] if other else own

        identified = self._identified
        drawn = two_way_bootstrap(statistic, identified.concepts, 1, draws=identified.draws, heads=False)
        own, *other = (side.by_head()[:, columns] for side in sides)
        table = own - other[0] if other else own
        return widened(drawn, left_out * head_variance(table, [layers[column] for column in columns]))


@dataclass(frozen=True, eq=False)
class _Compared:
    """Outcomes of comparisons with foils.

    Attributes:
        table: outcome for each picture, foil and head.
        counts: foils that count.
        all_pairs: True if foil j came from picture j.
    """

    table: Float[Tensor, "P F n"]
    counts: Tensor
    all_pairs: bool = False

    @classmethod
    def of_table(cls, table: Float[Tensor, "P n"]) -> "_Compared":
        """A table without foils."""
        return cls(table[:, None], torch.ones(len(table), 1))

    def by_head(self) -> Float[Tensor, "P n"]:
        """Mean over the foils that count."""
        counts = self.counts[..., None].double()
        return (self.table * counts).sum(dim=1) / counts.sum(dim=1)

    def mean(self, means: Float[Tensor, "P F"], pictures: Int64[Tensor, "draws k"]) -> Float[Tensor, " draws"]:
        """Mean over drawn pictures of the mean over foils, which are drawn with the pictures if every picture is one.

        Undefined for a draw whose pictures all show one concept.
        """
        ones = torch.ones(pictures.shape, dtype=torch.float64)
        times = torch.zeros(len(pictures), len(means), dtype=torch.float64).scatter_add_(1, pictures, ones)
        weights = self.counts.double()
        if self.all_pairs:
            total, number = times @ (means * weights).T, times @ weights.T
        else:
            total, number = (means * weights).sum(dim=1)[None], weights.sum(dim=1)[None]
        counted = times * (number > 0)
        return (total / number.clamp_min(1e-12) * counted).sum(dim=1) / counted.sum(dim=1)


def _as_share(estimate: Estimate) -> Estimate:
    """Cuts an interval at the ends of what a share can be."""
    return Estimate(estimate.value, max(0.0, estimate.low), min(1.0, estimate.high))


def _layers(identified: Identified) -> tuple[int, ...]:
    return tuple(sorted(set(identified.layers)))
