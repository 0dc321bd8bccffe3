"""Summary of the identification study, computed from its stored parts."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.lenses import Strength
from steerlens.studies.identification.measure import DIFFUSION
from steerlens.studies.identification.results import Identification, IdentificationSummary
from steerlens.studies.identification.scores import LENSES, STEERING, Identified, wins
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.measurements import View
from steerlens.studies.shared.stats import Estimate, mean_estimate
from steerlens.studies.shared.targets import INPUT


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
    rows = tuple(
        identification(identified, lens, view, compare)
        for lens in LENSES
        for view in identified.views
        for compare in identified.compared
    )
    view = identified.views[0]
    own = identified.contest(STEERING, view, INPUT).share()
    alone = identified.contest(DIFFUSION, view, INPUT).share()
    difference = _over_pictures(identified, own - alone)
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
        heads={site.label: float(own[:, column].mean()) for column, site in enumerate(identified.sites)},
        fidelity=None if view == "requested" else _over_pictures(identified, identified.fidelity()),
        difference=difference,
        judge=judge,
        command=command,
        model=model,
    )


def identification(identified: Identified, lens: str, view: View, compare: str) -> Identification:
    """Results of one lens with one kind of embeddings."""
    contest, control = identified.contest(lens, view, compare), identified.control(lens, view, compare)
    own = contest.share()
    against = None if control is None else wins(contest.own, control)
    return Identification(
        lens,
        view,
        compare,
        _over_pictures(identified, own),
        _by_layer(identified, own),
        None if against is None else _over_pictures(identified, against),
        None if control is None else _over_pictures(identified, contest.foils_against(control)),
        _over_pictures(identified, contest.rank()),
        _over_pictures(identified, contest.first()),
        contest.candidates,
        () if against is None else _by_layer(identified, against),
    )


def _by_layer(identified: Identified, table: Float[Tensor, "P n"]) -> tuple[Estimate, ...]:
    """Mean over the heads of each layer."""
    return tuple(
        _over_pictures(identified, table[:, [site.layer == layer for site in identified.sites]])
        for layer in _layers(identified)
    )


def _layers(identified: Identified) -> tuple[int, ...]:
    return tuple(sorted({site.layer for site in identified.sites}))


def _over_pictures(identified: Identified, table: Float[Tensor, "P n"]) -> Estimate:
    """Mean with its interval over draws of concepts; the heads are those of the model, and no sample."""
    means = table.to(torch.float64).mean(dim=1, keepdim=True)
    return mean_estimate(means, identified.concepts, draws=identified.draws, heads=False)
