"""Cells of real forward passes: total effects, their controls and ablations, batched by layer.

A batch holds all planned cells of one layer, finished or not, so that a resumed run repeats the same arithmetic;
batches without an unfinished cell are not run.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.atlas import REAL_PASSES, Cell, LensName, Plan
from steerlens.decoders import clean_conditioning, fitting
from steerlens.lenses import (
    Change,
    ChangeKind,
    CleanPass,
    Direction,
    TokenTotalLens,
    TotalLens,
    clean_pass,
    places_of,
)
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.sweep.ablations import ablates_heads
from steerlens.sweep.cells import SteeredCell, TracedPicture
from steerlens.sweep.job import Job
from steerlens.sweep.selection import Selection

_KINDS: Mapping[LensName, ChangeKind] = {"total": "scaled", "ablation": "ablated", "total_control": "control"}

_ROUNDING = 8
"""Relative length of a change, in machine epsilons, below which its direction is rounding."""


def total_lens(job: Job) -> TotalLens | TokenTotalLens:
    """The lens that computes the real passes of a job."""
    if job.reads_tokens:
        return TokenTotalLens(
            job.encoder, job.plan.strength, job.directions, job.vector_at, decoder=job.decoder, area=job.tokens
        )
    return TotalLens(job.encoder, job.plan.strength, job.directions, job.vector_at)


@torch.no_grad()
def real_pass_cells(
    job: Job,
    traced: TracedPicture,
    cells: Sequence[Cell],
    wanted: Collection[str],
    target: Float[Tensor, "E"],
    target_tokens: Float[Tensor, "t D"] | None,
) -> Iterator[SteeredCell]:
    """Runs the real forward passes of one picture's cells.

    Args:
        job: the job.
        traced: the traced picture.
        cells: all its cells, which decide the batches.
        wanted: keys of the cells to return.
        target: embedding that similarities refer to.
        target_tokens: tokens that they refer to, for a decoder of image tokens.

    Raises:
        ModelError: if the passes do not fit into memory.
    """
    lens, of_change = total_lens(job), dict[Change, list[Cell]]()
    for cell in cells:
        if cell.lens in REAL_PASSES:
            of_change.setdefault(Change(cell.site, _KINDS[cell.lens], cell.draw), []).append(cell)
    with fitting("a forward pass of one picture"):
        clean = clean_pass(job.encoder, traced.inputs, traced.trace)
    unchanged = traced.trace.embedding[0].float().cpu()
    if job.reads_tokens:
        unchanged = clean_conditioning(job.encoder, job.decoder, traced.inputs).values[0]
    for batch in lens.batches(list(of_change)):
        if not any(cell.key in wanted for change in batch for cell in of_change[change]):
            continue
        with fitting(f"a forward pass of {len(batch)} changed pictures"):
            conditionings = lens.changed(clean, batch)[0].float().cpu()
            rhos = lens.relative_strength(clean, batch)[0].tolist()
            cosines = _cosines(lens, clean, batch, conditionings, unchanged, job.encoder.dtype)
        for change, conditioning, rho in zip(batch, conditionings, rhos, strict=True):
            for cell in of_change[change]:
                if cell.key in wanted:
                    yield SteeredCell(
                        cell, rho, conditioning, target, target_tokens, *cosines.get(change, (None, None))
                    )


def encoder_passes(
    plan: Plan, selection: Selection, n_layers: int, n_heads: int, directions: Mapping[str, Direction], at: Site | None
) -> float:
    """Counts the real forward passes of a plan, as shares of whole ones, clean passes included.

    Args:
        plan: the plan.
        selection: sites that are decoded; the mean share stands for those that are not known beforehand.
        n_layers: L.
        n_heads: H; where heads are ablated, every head of the model is.
        directions: directions, groups and regions by name.
        at: where directions are added.

    Raises:
        UsageError: if a site has no place in the real forward pass.
    """
    (_, cells), *_ = plan.by_picture()
    seeds = len(plan.seeds)
    real = [cell for cell in cells if cell.lens in REAL_PASSES]
    if not real:
        return 0.0
    share = {cell.site: _share(cell.site, n_layers, directions, at) for cell in real}
    mean = sum(share[cell.site] for cell in real) / len(real)
    decoded = mean * _most(selection, cells) / seeds
    deciding = sum(share[cell.site] for cell in selection.ranks(cells) if cell.lens == "total") / seeds
    # A clean pass for the readings and each head without decoding: H heads that begin at every layer.
    ablated = 1 + n_heads * (n_layers + 1) / 2 if ablates_heads(cells) else 0
    return len(plan.pictures) * (1 + decoded + ablated + (0 if selection.rule == "all" else deciding))


def _most(selection: Selection, cells: Sequence[Cell]) -> int:
    """Most real-pass cells of one picture that a selection decodes."""
    return selection.at_most(cells) - selection.at_most([cell for cell in cells if cell.lens not in REAL_PASSES])


def _share(site: Site, n_layers: int, directions: Mapping[str, Direction], at: Site | None) -> float:
    first = min(max(place.layer, 0) for place, _ in places_of(site, directions.get(site.name), at))
    return (n_layers - first) / n_layers


def _cosines(
    lens: TotalLens | TokenTotalLens,
    clean: CleanPass,
    batch: Sequence[Change],
    conditionings: Tensor,
    unchanged: Tensor,
    precision: torch.dtype,
) -> dict[Change, tuple[float, float | None]]:
    """Compares total effects with direct ones: cosine of the conditionings, and of their changes."""
    compared = [change for change in batch if change.kind != "control"]
    if not compared:
        return {}
    direct = lens.direct(clean, compared)[0].float().cpu()
    least = _ROUNDING * torch.finfo(precision).eps * unchanged.norm()
    cosines: dict[Change, tuple[float, float | None]] = {}
    for change, frozen in zip(compared, direct, strict=True):
        reacting = conditionings[batch.index(change)]
        changes = [(side - unchanged).flatten() for side in (reacting, frozen)]
        known = all(bool(change.norm() > least) for change in changes)
        cosines[change] = (
            float(cosine_similarity(reacting.flatten(), frozen.flatten())),
            float(cosine_similarity(*changes)) if known else None,
        )
    return cosines
