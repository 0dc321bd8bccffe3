"""The local engine: carries a plan out, picture after picture, decoding in large batches across them.

Everything is a generator of events, so that a command line, an app and a notebook show the same progress, and what is
finished can be stored before the next batch begins.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import Decoded, DecodeOptions, Decoder, check_fit, clean_conditioning
from steerlens.decoders.batches import BatchSize, decode_in_batches
from steerlens.encoders.base import Encoder, EncoderSpec, Inputs
from steerlens.errors import ModelError
from steerlens.images import Picture, eight_bit, png_bytes
from steerlens.lenses.diffusion import DiffusionLens
from steerlens.lenses.image_tokens import (
    TokenDiffusionLens,
    TokenSteeringLens,
    TokenTrace,
    read_tokens,
    source_of,
    trace_tokens,
)
from steerlens.lenses.logit import LogitLens
from steerlens.lenses.readout import Direction
from steerlens.lenses.steering import SteeringLens, steer_directions
from steerlens.lenses.strength import visible_norm
from steerlens.lenses.tokens import Area
from steerlens.scores import cosine_similarity
from steerlens.sites import Site, all_heads, layer_sites
from steerlens.sweep.atlas import CellResult, Reading
from steerlens.sweep.cache import TraceCache
from steerlens.sweep.choice import Choice
from steerlens.sweep.plan import Cell, Plan
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


@dataclass(frozen=True)
class Advanced:
    """Progress: so much more of a stage is done.

    Attributes:
        stage: `tracing`, `decoding` or `re-encoding`.
        done: pictures traced, or pictures decoded, counting unfinished ones by their denoising steps.
        total: of how many.
    """

    stage: str
    done: float
    total: float


@dataclass(frozen=True, eq=False)
class CellsDone:
    """Finished cells: nothing about them will change."""

    results: tuple[CellResult, ...]


@dataclass(frozen=True, eq=False)
class ReadingDone:
    """A finished reading of an input picture."""

    reading: Reading


Event = Advanced | CellsDone | ReadingDone


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


def run(job: Job, finished: frozenset[str] = frozenset(), read: frozenset[str] = frozenset()) -> Iterator[Event]:
    """Carries a job out: readings as pictures are traced, cells as batches are decoded.

    Args:
        job: what to do.
        finished: keys of cells that are left out, since an earlier call finished them.
        read: ids of pictures whose reading is there already; they are traced again only if cells of theirs are left.

    Raises:
        ModelError: if encoder and decoder do not fit, or a model gives values that are not finite.
        UsageError: if the plan asks for a site that the encoder does not have.
    """
    if _reads_tokens(job):
        source_of(job.decoder)
        check_fit(job.decoder.spec, job.encoder.spec)
    elif job.decoder.spec.embedding_size != job.encoder.spec.embedding_size:
        raise ModelError(
            f"encoder {job.encoder.spec.name} gives embeddings of size {job.encoder.spec.embedding_size}, decoder "
            f"{job.decoder.spec.name} reads size {job.decoder.spec.embedding_size}: they do not fit. Index pictures "
            "of your own for this encoder (steerlens neighbours index), or fit a bridge (steerlens bridge fit)."
        )
    # What a decoder suggests for a CPU is where more pictures at once gain nothing; GPUs differ too much to know.
    on_gpu = getattr(job.decoder, "device", torch.device("cpu")).type != "cpu"
    batch, waiting = BatchSize(job.decoder, job.options, grows=on_gpu), list[_Steered]()
    left = dict(job.plan.without(finished).by_picture())
    total, decoded = job.choice.at_most(job.plan.cells) - (len(job.plan) - sum(map(len, left.values()))), 0
    groups = [(id, cells) for id, cells in job.plan.by_picture() if id in left or id not in read]
    for traced, (id, cells) in enumerate(groups, start=1):
        reading, steered = _trace_and_steer(job, id, cells, finished)
        yield Advanced("tracing", traced, len(groups))
        yield ReadingDone(reading)
        for one in steered:
            waiting.append(one)
            if len(waiting) >= batch.size:
                yield from _decode(job, waiting, batch, decoded, total)
                decoded += len(waiting)
                waiting.clear()
    if waiting:
        yield from _decode(job, waiting, batch, decoded, total)


def _reads_tokens(job: Job) -> bool:
    return job.decoder.spec.consumes == "image_tokens"


@torch.no_grad()
def _trace_and_steer(
    job: Job, id: str, cells: Sequence[Cell], finished: frozenset[str]
) -> tuple[Reading, Iterable[_Steered]]:
    """The reading of one picture, and what of its cells is to be decoded and is not finished."""
    encoder, picture = job.encoder, job.pictures[id]
    inputs = encoder.preprocess([picture.image])
    trace = encoder.trace(inputs, attention=True) if job.traces is None else job.traces.trace(inputs)
    error = trace.check()
    target = trace.embedding[0] if job.target.direction is None else job.target.direction.to(trace.embedding)

    def steer(chosen: Sequence[Cell]) -> Iterable[_Steered]:
        if _reads_tokens(job):
            return _steer_tokens(job, inputs, chosen, target.float().cpu())
        return _steer(job, trace, chosen, target.float().cpu())

    if job.choice.kind != "all":
        # Of all cells, finished or not: a run that goes on must choose what it chose before.
        wanted = job.choice.pick((one.cell, one.steered_similarity) for one in steer(cells))
        cells = [cell for cell in cells if cell.key in wanted]
    reading = _reading(job, id, trace, target, error)
    if _reads_tokens(job):
        return reading, steer([cell for cell in cells if cell.key not in finished])
    # All cells are read out together, finished or not: the last digits depend on how many are, and a run that was
    # interrupted must not differ from one that was not.
    return reading, (one for one in steer(cells) if one.cell.key not in finished)


def _steer(job: Job, trace: Trace, cells: Sequence[Cell], target: Tensor) -> Iterator[_Steered]:
    for lens in ("diffusion", "steering", "control"):
        chosen = [cell for cell in cells if cell.lens == lens]
        if chosen:
            with torch.no_grad():
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
    directions = torch.stack([control_direction(cell, trace.final[0]) for cell in cells])
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
    controls = steering.controls(trace, [cell.site], control_direction(cell, trace.read[0])[None])
    return rho, read_tokens(job.encoder, job.decoder, controls)


def control_direction(cell: Cell, like: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
    """An isotropic random direction that depends on the control's site and draw alone."""
    digest = hashlib.sha256(f"{cell.site}|{cell.draw}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like)


def _reading(job: Job, id: str, trace: Trace, target: Tensor, error: float) -> Reading:
    encoder = job.encoder
    L, H = encoder.spec.n_layers, encoder.spec.n_heads
    heads, centred = trace.stack(all_heads(L, H))[0].float(), encoder.spec.centred
    final = trace.final[0].float()
    if centred:
        heads, final = heads - heads.mean(-1, keepdim=True), final - final.mean(-1, keepdim=True)
    labels = ()
    if job.vocabulary is not None:
        # Of the whole plan: a run that goes on must not lose the labels of what it finished before.
        asked = [cell.site for cell in job.plan.cells if cell.picture == id and cell.lens != "control"]
        sites = dict.fromkeys([Site("embed"), *layer_sites("resid_post", L), *asked])
        labels = LogitLens(encoder, job.vocabulary, job.directions).read(trace, list(sites), job.n_labels)[0]
    return Reading(
        picture=_noted(job.pictures[id], encoder.spec),
        id=id,
        embedding=trace.embedding[0].float().cpu(),
        target=job.target.description,
        target_similarity=float(cosine_similarity(trace.embedding[0], target)),
        labels=labels,
        attention=None if trace.attention is None else trace.attention[0].float().mean(dim=2).half().cpu(),
        write_norms=(visible_norm(heads, centred=False) / visible_norm(final, centred=False)).view(L, H).cpu(),
        direct_similarity=cosine_similarity(heads.flatten(1), final.flatten()).view(L, H).cpu(),
        decomposition_error=error,
        steered_similarity=None if _reads_tokens(job) else _head_similarity(job, trace, target),
    )


def _head_similarity(job: Job, trace: Trace, target: Tensor) -> Float[Tensor, "L H"]:
    """Cosine of every head's steered embedding with the target: the ranking that takes no decoding."""
    L, H = job.encoder.spec.n_layers, job.encoder.spec.n_heads
    steered = SteeringLens(job.encoder, job.plan.strength).embeddings(trace, all_heads(L, H))[0]
    return cosine_similarity(steered.float(), target.float()).view(L, H).cpu()


def _noted(picture: Picture, spec: EncoderSpec) -> Picture:
    """The picture with a note if the encoder does not see all of it."""
    (width, height), (rows, columns) = picture.image.size, spec.image_size
    seen = min(width / columns, height / rows)
    across, down = round(seen * columns), round(seen * rows)
    if not spec.crops or (across, down) == (width, height):
        return picture
    note = f"the encoder sees its centre alone, {across} x {down} of {width} x {height} pixels"
    return replace(picture, note="; ".join(filter(None, (picture.note, note))))


def _decode(job: Job, waiting: Sequence[_Steered], batch: BatchSize, before: int, total: int) -> Iterator[Event]:
    conditioning = Conditioning(job.decoder.spec.consumes, torch.stack([one.conditioning for one in waiting]))
    seeds, done = [one.cell.seed for one in waiting], before
    for event in decode_in_batches(job.decoder, conditioning, seeds, job.options, batch):
        if isinstance(event, Decoded):
            chosen = waiting[event.first : event.first + len(event.pictures)]
            yield CellsDone(tuple(_score(job.encoder, job.decoder, chosen, event.pictures)))
            done += len(chosen)
            yield Advanced("decoding", done, total)
        else:
            yield Advanced("decoding", done + event.items * event.step / (event.steps + 1), total)


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
