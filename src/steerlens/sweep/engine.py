"""The local engine: carries a plan out, picture after picture, decoding in large batches across them.

Everything is a generator of events, so that a command line, an app and a notebook show the same progress, and what is
finished can be stored before the next batch begins.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steerlens.atlas.atlas import CellResult, Reading
from steerlens.atlas.plan import Cell, Plan
from steerlens.conditioning import Conditioning
from steerlens.decoders.base import Decoded, DecodeOptions, Decoder, check_fit, clean_conditioning
from steerlens.decoders.batches import BatchSize, computed_in_batches, decode_in_batches, fitting
from steerlens.encoders.base import Encoder, Inputs
from steerlens.errors import ModelError
from steerlens.images import Picture, eight_bit, png_bytes
from steerlens.lenses.components import Direction
from steerlens.lenses.controls import control_direction, steer_directions
from steerlens.lenses.diffusion import DiffusionLens
from steerlens.lenses.image_tokens import TokenDiffusionLens, TokenSteeringLens, read_tokens
from steerlens.lenses.regions import Area
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.token_trace import TokenTrace, source_of, trace_tokens
from steerlens.progress import Progress
from steerlens.scores import cosine_similarity
from steerlens.sweep.readings import reading_of
from steerlens.sweep.selection import Choice
from steerlens.sweep.trace_cache import TraceCache
from steerlens.trace import Trace
from steerlens.vocabulary import Vocabulary

_SITES = 32
"""Sites whose content on all tokens is held at once; each such chunk takes one more pass of the encoder."""


@dataclass(frozen=True, eq=False)
class Target:
    """What similarities are measured against.

    Attributes:
        description: in words, for reports.
        direction: an embedding to compare with; None for each input's own.
        source: what the direction was made from, a text or the SHA-256 of a picture; a run is known by it again.
        tokens: for a decoder of image tokens, those of the picture that the direction was made from.
    """

    description: str = "the input itself"
    direction: Float[Tensor, "E"] | None = None
    source: str = ""
    tokens: Float[Tensor, "t D"] | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """All that a plan needs to be carried out.

    Attributes:
        encoder: the encoder.
        decoder: a decoder of its embeddings, or of its image tokens.
        pictures: the inputs, by id.
        plan: what to decode.
        options: how to decode.
        vocabulary: labels for the Logit Lens, or None.
        target: what similarities are measured against.
        directions: what stands behind `vector`, `group` and `region` sites, by name.
        n_labels: labels kept for every site.
        tokens: for a decoder of image tokens, those that the Steering Lens writes to; None for all.
        traces: those of earlier runs, or None to take every trace anew.
        choice: which of the plan's cells are decoded.
        models: which weights encoder and decoder have, in which precision, as a manifest says it; workers elsewhere
            make sure that theirs are the same.
    """

    encoder: Encoder
    decoder: Decoder
    pictures: Mapping[str, Picture]
    plan: Plan
    options: DecodeOptions
    vocabulary: Vocabulary | None = None
    target: Target = field(default_factory=Target)
    directions: Mapping[str, Direction] = field(default_factory=dict)
    n_labels: int = 5
    tokens: Area | None = None
    traces: TraceCache | None = None
    choice: Choice = field(default_factory=Choice)
    models: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def reads_tokens(self) -> bool:
        """Whether the decoder reads image tokens, not an image embedding."""
        return self.decoder.spec.consumes == "image_tokens"


@dataclass(frozen=True, eq=False)
class FinishedCells:
    """Results of one batch, which will not change: a payload of a sweep's progress."""

    results: tuple[CellResult, ...]


@dataclass(frozen=True, eq=False)
class _Steered:
    """A cell on its way: what to decode and what to compare it with, in both spaces if the decoder reads tokens."""

    cell: Cell
    rho: float
    conditioning: Float[Tensor, "E"] | Float[Tensor, "t D"]
    target: Float[Tensor, "E"]
    target_tokens: Float[Tensor, "t D"] | None = None

    @property
    def steered_similarity(self) -> float:
        """Cosine of what is to be decoded with the target, in the space that is decoded; NaN if it has no target."""
        wanted = self.target_tokens if self.conditioning.ndim == 2 else self.target
        return math.nan if wanted is None else _flat_cosine(self.conditioning, wanted)


def run(
    job: Job,
    finished: frozenset[str] = frozenset(),
    read: frozenset[str] = frozenset(),
    batch: BatchSize | None = None,
) -> Iterator[Progress]:
    """Carries a job out: readings as pictures are traced, cells as batches are decoded.

    Stages are `tracing`, `decoding` and `re-encoding`. The payload is a finished `Reading` or `FinishedCells`. The
    total of `decoding` falls when fewer pictures are selected than might have been.

    Args:
        job: what to do.
        finished: keys of cells that are left out, since an earlier call finished them.
        read: ids of pictures whose reading is there already; they are traced again only if cells of theirs are left.
        batch: the size of batches, which learns from them; by default it begins anew.

    Raises:
        ModelError: if encoder and decoder do not fit, a picture does not fit into memory, or a model gives values that
            are not finite.
        UsageError: if the plan asks for a site that the encoder does not have.
    """
    _check_pair(job)
    held = Counter(key.partition("|")[0] for key in finished)
    left = {id for id, cells in job.plan.by_picture() if id not in read or held[id] < job.choice.at_most(cells)}
    if not left:
        return
    batch, waiting = batch or batch_size(job), list[_Steered]()
    total, decoded = job.choice.at_most(job.plan.cells) - sum(held[id] for id in job.plan.pictures), 0
    yield Progress("decoding", decoded, total, "pictures")
    for traced, (id, cells) in enumerate(one for one in job.plan.by_picture() if one[0] in left):
        yield Progress("tracing", traced, len(left), "pictures")
        trace = _trace(job, id)
        if id not in read:
            yield Progress("tracing", traced, len(left), "pictures", _read(job, id, cells, trace))
        most, chosen = job.choice.at_most(cells), ()
        if held[id] < most:
            chosen = _chosen(job, trace, cells)
            # How many are above a similarity is not known before.
            total -= most - len(chosen)
        yield Progress("tracing", traced + 1, len(left), "pictures")
        for one in _left(job, trace, chosen, finished):
            waiting.append(one)
            if len(waiting) >= batch.size:
                yield from _decode(job, waiting, batch, decoded, total)
                decoded += len(waiting)
                waiting.clear()
    if waiting:
        yield from _decode(job, waiting, batch, decoded, total)
    else:
        yield Progress("decoding", decoded, total, "pictures")


def survey(job: Job, id: str, *, read: bool) -> tuple[Reading | None, tuple[Cell, ...]]:
    """What comes before any decoding of one picture: its reading, unless it is `read`, and its cells to be decoded.

    Raises:
        ModelError: as `run`.
        UsageError: as `run`.
    """
    _check_pair(job)
    cells, trace = job.plan.of(id), _trace(job, id)
    return None if read else _read(job, id, cells, trace), _chosen(job, trace, cells)


def batch_size(job: Job) -> BatchSize:
    """How many pictures of a job are decoded at once, to begin with."""
    # What a decoder suggests for a CPU is where more pictures at once gain nothing; GPUs differ too much to know.
    on_gpu = getattr(job.decoder, "device", torch.device("cpu")).type != "cpu"
    return BatchSize(job.decoder, job.options, grows=on_gpu)


def _check_pair(job: Job) -> None:
    if job.reads_tokens:
        source_of(job.decoder)
        check_fit(job.decoder.spec, job.encoder.spec)
    elif job.decoder.spec.embedding_size != job.encoder.spec.embedding_size:
        raise ModelError(
            f"encoder {job.encoder.spec.name} gives embeddings of size {job.encoder.spec.embedding_size}, decoder "
            f"{job.decoder.spec.name} reads size {job.decoder.spec.embedding_size}: they do not fit. Index pictures "
            "of your own for this encoder (steerlens neighbours index), or fit a bridge (steerlens bridge fit)."
        )


@dataclass(frozen=True, eq=False)
class _Traced:
    """A picture that went through the encoder, and what it is compared with."""

    inputs: Inputs
    trace: Trace
    error: float
    target: Float[Tensor, "E"]


@torch.no_grad()
def _trace(job: Job, id: str) -> _Traced:
    picture = job.pictures[id]
    inputs = job.encoder.preprocess([picture.image])
    with fitting(f"tracing the picture {picture.name}"):
        trace = job.encoder.trace(inputs, attention=True) if job.traces is None else job.traces.trace(inputs)
        target = trace.embedding[0] if job.target.direction is None else job.target.direction.to(trace.embedding)
        return _Traced(inputs, trace, trace.check(), target)


@torch.no_grad()
def _read(job: Job, id: str, cells: Sequence[Cell], traced: _Traced) -> Reading:
    with fitting(f"reading the picture {job.pictures[id].name}"):
        return reading_of(job, id, cells, traced.trace, traced.target, traced.error)


def _chosen(job: Job, traced: _Traced, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
    """The cells of one picture that are decoded, of all cells: a run that goes on chooses what it chose before."""
    if job.choice.kind == "all":
        return cells
    wanted = job.choice.pick((one.cell, one.steered_similarity) for one in _steered(job, traced, cells))
    return tuple(cell for cell in cells if cell.key in wanted)


def _left(job: Job, traced: _Traced, cells: Sequence[Cell], finished: frozenset[str]) -> Iterable[_Steered]:
    """What of one picture's cells is to be decoded and is not finished."""
    left = [cell for cell in cells if cell.key not in finished]
    if job.reads_tokens or not left:
        return _steered(job, traced, left)
    # All cells are read out together, finished or not: the last digits depend on how many are, and a run that was
    # interrupted must not differ from one that was not.
    return (one for one in _steered(job, traced, cells) if one.cell.key not in finished)


def _steered(job: Job, traced: _Traced, cells: Sequence[Cell]) -> Iterator[_Steered]:
    target = traced.target.float().cpu()
    if job.reads_tokens:
        return _steer_tokens(job, traced.inputs, cells, target)
    return _steer(job, traced.trace, cells, target)


def _steer(job: Job, trace: Trace, cells: Sequence[Cell], target: Tensor) -> Iterator[_Steered]:
    for lens in ("diffusion", "steering", "control"):
        chosen = [cell for cell in cells if cell.lens == lens]
        if chosen:
            with torch.no_grad(), fitting(f"steering {len(chosen)} sites"):
                embeddings, rhos = _conditionings(job, trace, lens, chosen)
            for cell, rho, row in zip(chosen, rhos.tolist(), embeddings.float().cpu(), strict=True):
                yield _Steered(cell, rho, row, target)


def _conditionings(job: Job, trace: Trace, lens: str, cells: Sequence[Cell]) -> tuple[Tensor, Tensor]:
    """Embeddings (N,E) and relative strengths (N,) of one picture's cells under one lens."""
    sites = list(dict.fromkeys(cell.site for cell in cells))
    rows = [sites.index(cell.site) for cell in cells]
    if lens == "diffusion":
        embeddings = DiffusionLens(job.encoder, job.directions).embeddings(trace, sites)[0, rows]
        return embeddings, torch.zeros(len(cells))
    steering = SteeringLens(job.encoder, job.plan.strength, job.directions)
    rhos = steering.relative_strength(trace, sites)[0, rows]
    if lens == "steering":
        return steering.embeddings(trace, sites)[0, rows], rhos
    directions = torch.stack([control_direction(cell.site, cell.draw, trace.final[0]) for cell in cells])
    return steer_directions(job.encoder, trace, directions[None], rhos[None])[0], rhos


@torch.no_grad()
def _steer_tokens(job: Job, inputs: Inputs, cells: Sequence[Cell], target: Tensor) -> Iterator[_Steered]:
    """One picture's cells, a few sites at a time: what all of them hold on all tokens may not fit into memory."""
    sites = list(dict.fromkeys(cell.site for cell in cells))
    shown = TokenDiffusionLens(job.encoder, job.decoder)
    own = job.target.tokens
    if job.target.direction is None:
        own = clean_conditioning(job.encoder, job.decoder, inputs).values[0]
    for start in range(0, len(sites), _SITES):
        chosen = sites[start : start + _SITES]
        with fitting(f"what {len(chosen)} sites write to all tokens"):
            trace = trace_tokens(job.encoder, job.decoder, inputs, chosen, job.directions)
        for cell in cells:
            if cell.site in chosen:
                rho, tokens = 0.0, shown.tokens(trace, [cell.site]) if cell.lens == "diffusion" else None
                if tokens is None:
                    rho, tokens = _steered_tokens(job, trace, cell)
                yield _Steered(cell, rho, tokens[0, 0].cpu(), target, own)


def _steered_tokens(job: Job, trace: TokenTrace, cell: Cell) -> tuple[float, Float[Tensor, "1 1 t D"]]:
    steering = TokenSteeringLens(job.encoder, job.decoder, job.plan.strength, job.tokens)
    rho = float(steering.relative_strength(trace, [cell.site]))
    if cell.lens == "steering":
        return rho, steering.tokens(trace, [cell.site])
    controls = steering.controls(trace, [cell.site], control_direction(cell.site, cell.draw, trace.read[0])[None])
    return rho, read_tokens(job.encoder, job.decoder, controls)


def _decode(job: Job, waiting: Sequence[_Steered], batch: BatchSize, before: int, total: int) -> Iterator[Progress]:
    conditioning = Conditioning(job.decoder.spec.consumes, torch.stack([one.conditioning for one in waiting]))
    seeds, done = [one.cell.seed for one in waiting], float(before)
    for event in decode_in_batches(job.decoder, conditioning, seeds, job.options, batch):
        decoded = event.payload
        if isinstance(decoded, Decoded):
            yield Progress("re-encoding", done, total, "pictures")
            chosen = waiting[decoded.first : decoded.first + len(decoded.pictures)]
            finished = FinishedCells(_scored(job, chosen, decoded.pictures, batch))
            yield Progress("decoding", before + event.done, total, "pictures", finished)
        else:
            yield Progress("decoding", before + event.done, total, "pictures")
        done = before + event.done


def _scored(job: Job, cells: Sequence[_Steered], pictures: Tensor, batch: BatchSize) -> tuple[CellResult, ...]:
    def score(start: int, stop: int) -> list[CellResult]:
        return list(_score(job.encoder, job.decoder, cells[start:stop], pictures[start:stop]))

    return tuple(computed_in_batches(score, len(cells), batch, "embedding one decoded picture"))


def _score(encoder: Encoder, decoder: Decoder, batch: Sequence[_Steered], pictures: Tensor) -> Iterator[CellResult]:
    inputs = encoder.preprocess_tensor(pictures)
    reencoded = encoder.embed(inputs).float().cpu()
    # What the decoder reads of its own pictures: fidelity compares it with what was asked for.
    redrawn = reencoded if decoder.spec.consumes == "image_embedding" else None
    if redrawn is None:
        redrawn = clean_conditioning(encoder, decoder, inputs).values
    rows = zip(batch, eight_bit(pictures), reencoded, redrawn, strict=True)
    for one, array, embedding, drawn in rows:
        asked = one.conditioning
        yield CellResult(
            cell=one.cell,
            rho=one.rho,
            file=png_bytes(Image.fromarray(array)),
            conditioning=asked.mean(dim=0) if asked.ndim == 2 else asked,
            reencoded=embedding,
            similarity=float(cosine_similarity(embedding, one.target)),
            steered_similarity=one.steered_similarity,
            fidelity=_flat_cosine(drawn, asked),
        )


def _flat_cosine(one: Tensor, other: Tensor) -> float:
    return float(cosine_similarity(one.flatten(), other.flatten()))
