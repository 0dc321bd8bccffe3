"""Cells before decoding: traces of pictures, and their steered embeddings or tokens.

Nothing is decoded here; a selection ranks sites by the numbers of this module.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.atlas import REAL_PASSES, Cell, Reading, foil_of
from steerlens.decoders import clean_conditioning, fitting
from steerlens.encoders import Inputs
from steerlens.lenses import (
    DiffusionLens,
    SteeringLens,
    TokenDiffusionLens,
    TokenSteeringLens,
    TokenTrace,
    control_direction,
    read_tokens,
    steer_controls,
    steer_directions,
    trace_tokens,
    writes,
)
from steerlens.sweep.cells import SteeredCell as SteeredCell
from steerlens.sweep.cells import TracedPicture as TracedPicture
from steerlens.sweep.cells import flat_cosine as flat_cosine
from steerlens.sweep.job import Job
from steerlens.sweep.neurons import trace_inputs
from steerlens.sweep.readings import reading_of
from steerlens.sweep.real_passes import real_pass_cells
from steerlens.trace import Trace

_SITES = 32
"""Sites whose content on all tokens is in memory at a time; each chunk costs another pass of the encoder."""


@torch.no_grad()
def trace_picture(job: Job, id: str) -> TracedPicture:
    """Traces one input picture.

    Raises:
        ModelError: if it does not fit into memory, or the model returns values that are not finite.
    """
    picture = job.pictures[id]
    inputs = job.encoder.preprocess([picture.image])
    neurons = any(cell.site.kind == "neuron" for cell in job.plan.of(id)) if id in job.plan.pictures else False
    with fitting(f"tracing the picture {picture.name}"):
        if job.traces is None:
            trace = trace_inputs(job.encoder, inputs, attention=True, neurons=neurons)
        else:
            trace = job.traces.trace(inputs)
        target = trace.embedding[0] if job.target.direction is None else job.target.direction.to(trace.embedding)
        return TracedPicture(inputs, trace, trace.check(), target)


@torch.no_grad()
def read_picture(job: Job, id: str, cells: Sequence[Cell], traced: TracedPicture) -> Reading:
    """Computes the reading of a traced picture.

    Raises:
        ModelError: if it does not fit into memory.
    """
    with fitting(f"reading the picture {job.pictures[id].name}"):
        return reading_of(job, id, cells, traced)


def selected_cells(job: Job, traced: TracedPicture, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """Cells of one picture to decode.

    All planned cells are ranked, finished or not, so that a resumed run makes the same selection.
    """
    if job.selection.rule == "all":
        return cells
    deciding = job.selection.ranks(cells)
    similarity = {steered.cell: steered.steered_similarity for steered in unfinished_cells(job, traced, deciding)}
    keys = job.selection.select((cell, similarity.get(cell, math.nan)) for cell in cells)
    return tuple(cell for cell in cells if cell.key in keys)


def unfinished_cells(
    job: Job, traced: TracedPicture, cells: Sequence[Cell], finished: frozenset[str] = frozenset()
) -> Iterator[SteeredCell]:
    """Steers the cells of one picture that are not finished."""
    left = [cell for cell in cells if cell.key not in finished]
    in_closed_form = [cell for cell in left if cell.lens not in REAL_PASSES]
    if job.reads_tokens or not in_closed_form:
        yield from _steer(job, traced, in_closed_form)
    else:
        # All cells are read out together, finished or not: the last digits depend on their number, and a resumed run
        # must not differ from an uninterrupted run.
        every = [cell for cell in cells if cell.lens not in REAL_PASSES]
        yield from (steered for steered in _steer(job, traced, every) if steered.cell.key not in finished)
    if len(left) > len(in_closed_form):
        target, target_tokens = traced.target.float().cpu(), _target_tokens(job, traced.inputs)
        yield from real_pass_cells(job, traced, cells, {cell.key for cell in left}, target, target_tokens)


def _steer(job: Job, traced: TracedPicture, cells: Sequence[Cell]) -> Iterator[SteeredCell]:
    target = traced.target.float().cpu()
    if job.reads_tokens:
        return _steer_tokens(job, traced.inputs, cells, target)
    return _steer_embeddings(job, traced.trace, cells, target)


def _steer_embeddings(job: Job, trace: Trace, cells: Sequence[Cell], target: Tensor) -> Iterator[SteeredCell]:
    for lens in ("diffusion", "steering", "control", "foil"):
        of_lens = [cell for cell in cells if cell.lens == lens]
        if of_lens:
            with torch.no_grad(), fitting(f"steering {len(of_lens)} sites"):
                embeddings, rhos = _embeddings(job, trace, lens, of_lens)
            for cell, rho, row in zip(of_lens, rhos.tolist(), embeddings.float().cpu(), strict=True):
                yield SteeredCell(cell, rho, row, target)


def _embeddings(
    job: Job, trace: Trace, lens: str, cells: Sequence[Cell]
) -> tuple[Float[Tensor, "N E"], Float[Tensor, "N"]]:
    """Embeddings and relative strengths of one picture's cells under one lens."""
    sites = list(dict.fromkeys(cell.site for cell in cells))
    rows = [sites.index(cell.site) for cell in cells]
    if lens == "diffusion":
        embeddings = DiffusionLens(job.encoder, job.directions).embeddings(trace, sites)[0, rows]
        return embeddings, torch.zeros(len(cells))
    steering = SteeringLens(job.encoder, job.plan.strength, job.directions)
    rhos = steering.relative_strength(trace, sites)[0, rows]
    if lens == "steering":
        return steering.embeddings(trace, sites)[0, rows], rhos
    if lens == "foil":
        foils = _foil_writes(job, cells)
        return steer_directions(job.encoder, trace, foils[None], rhos[None])[0], rhos
    draws = [(cell.site, cell.draw) for cell in cells]
    return steer_controls(job.encoder, trace, draws, rhos[None], job.directions)[0], rhos


def _foil_writes(job: Job, cells: Sequence[Cell]) -> Float[Tensor, "N R D"]:
    """Writes of the cells' sites for other inputs, each input traced once."""
    found: dict[Cell, Tensor] = {}
    for draw in dict.fromkeys(cell.draw for cell in cells):
        of_draw = [cell for cell in cells if cell.draw == draw]
        other = trace_picture(job, foil_of(job.inputs, of_draw[0].picture, draw)).trace
        sites = [cell.site for cell in of_draw]
        written = writes(job.encoder, other, sites, job.directions)[0]
        found |= dict(zip(of_draw, written, strict=True))
    return torch.stack([found[cell] for cell in cells])


@torch.no_grad()
def _steer_tokens(job: Job, inputs: Inputs, cells: Sequence[Cell], target: Tensor) -> Iterator[SteeredCell]:
    """Steers the cells of a picture a few sites at a time: all sites on all tokens may not fit into memory."""
    sites = list(dict.fromkeys(cell.site for cell in cells))
    diffusion = TokenDiffusionLens(job.encoder, job.decoder)
    target_tokens = _target_tokens(job, inputs)
    for start in range(0, len(sites), _SITES):
        chunk = sites[start : start + _SITES]
        with fitting(f"tracing {len(chunk)} sites on all tokens"):
            trace = trace_tokens(job.encoder, job.decoder, inputs, chunk, job.directions)
        for cell in cells:
            if cell.site in chunk:
                if cell.lens == "diffusion":
                    rho, tokens = 0.0, diffusion.tokens(trace, [cell.site])
                else:
                    rho, tokens = _steered_tokens(job, trace, cell)
                yield SteeredCell(cell, rho, tokens[0, 0].cpu(), target, target_tokens)


def _target_tokens(job: Job, inputs: Inputs) -> Float[Tensor, "t D"] | None:
    if job.reads_tokens and job.target.direction is None:
        return clean_conditioning(job.encoder, job.decoder, inputs).values[0]
    return job.target.tokens


def _steered_tokens(job: Job, trace: TokenTrace, cell: Cell) -> tuple[float, Float[Tensor, "1 1 t D"]]:
    steering = TokenSteeringLens(job.encoder, job.decoder, job.plan.strength, job.tokens)
    rho = float(steering.relative_strength(trace, [cell.site]))
    if cell.lens == "steering":
        return rho, steering.tokens(trace, [cell.site])
    controls = steering.controls(trace, [cell.site], control_direction(cell.site, cell.draw, trace.read[0])[None])
    return rho, read_tokens(job.encoder, job.decoder, controls)
