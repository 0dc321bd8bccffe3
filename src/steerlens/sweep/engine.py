"""The local engine: traces picture after picture, and decodes their cells in large batches across pictures.

It is a generator of progress, so that a command line, an app and a notebook show the same, and the caller can store
finished cells before the next batch begins.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from steerlens.atlas import Cell, CellResult, Reading
from steerlens.conditioning import Conditioning
from steerlens.decoders import (
    BatchSize,
    Decoded,
    Decoder,
    check_fit,
    clean_conditioning,
    computed_in_batches,
    decode_in_batches,
)
from steerlens.encoders import Encoder
from steerlens.errors import ModelError
from steerlens.images import eight_bit, png_bytes
from steerlens.lenses import source_of
from steerlens.progress import Progress
from steerlens.scores import cosine_similarity
from steerlens.sweep.cells import SteeredCell, flat_cosine
from steerlens.sweep.job import Job
from steerlens.sweep.steered import (
    read_picture,
    selected_cells,
    trace_picture,
    unfinished_cells,
)


@dataclass(frozen=True, eq=False)
class FinishedCells:
    """Final results of one batch: a payload of a sweep's progress."""

    results: tuple[CellResult, ...]


def run(
    job: Job,
    finished: frozenset[str] = frozenset(),
    read: frozenset[str] = frozenset(),
    batch: BatchSize | None = None,
) -> Iterator[Progress]:
    """Runs a job: yields readings as pictures are traced, and cells as batches are decoded.

    Stages are `tracing`, `decoding` and `re-encoding`. The payload is a finished `Reading` or `FinishedCells`. The
    total of `decoding` starts as an upper bound, and falls once the cells of a picture are selected.

    Args:
        job: the job.
        finished: keys of cells that an earlier call finished; they are left out.
        read: ids of pictures whose reading is stored; they are traced again only if some of their cells are missing.
        batch: batch size, adapted to the memory that batches take; by default the decoder's suggestion.

    Raises:
        ModelError: if encoder and decoder do not fit, a picture does not fit into memory, or a model gives values that
            are not finite.
        UsageError: if the plan names a site that the encoder does not have.
    """
    _check_pair(job)
    done_of = Counter(key.partition("|")[0] for key in finished)
    left = {id for id, cells in job.plan.by_picture() if id not in read or done_of[id] < job.selection.at_most(cells)}
    if not left:
        return
    batch, waiting = batch or batch_size(job), list[SteeredCell]()
    total, decoded = job.selection.at_most(job.plan.cells) - sum(done_of[id] for id in job.plan.pictures), 0
    yield Progress("decoding", decoded, total, "pictures")
    for number, (id, cells) in enumerate(planned for planned in job.plan.by_picture() if planned[0] in left):
        yield Progress("tracing", number, len(left), "pictures")
        traced = trace_picture(job, id)
        if id not in read:
            yield Progress("tracing", number, len(left), "pictures", read_picture(job, id, cells, traced))
        at_most, selected = job.selection.at_most(cells), ()
        if done_of[id] < at_most:
            selected = selected_cells(job, traced, cells)
            # The number of cells above a similarity is known only now.
            total -= at_most - len(selected)
        yield Progress("tracing", number + 1, len(left), "pictures")
        for steered in unfinished_cells(job, traced, selected, finished):
            waiting.append(steered)
            if len(waiting) >= batch.size:
                yield from decode_cells(job, waiting, batch, decoded, total)
                decoded += len(waiting)
                waiting.clear()
    if waiting:
        yield from decode_cells(job, waiting, batch, decoded, total)
    else:
        yield Progress("decoding", decoded, total, "pictures")


def survey(job: Job, id: str, *, read: bool) -> tuple[Reading | None, tuple[Cell, ...]]:
    """Reading and selected cells of one picture; nothing is decoded.

    Args:
        job: the job.
        id: id of the picture.
        read: True if its reading is stored already; None is returned in its place then.

    Raises:
        ModelError: as `run`.
        UsageError: as `run`.
    """
    _check_pair(job)
    cells, traced = job.plan.of(id), trace_picture(job, id)
    return None if read else read_picture(job, id, cells, traced), selected_cells(job, traced, cells)


def batch_size(job: Job) -> BatchSize:
    """Number of pictures that a job decodes at once at first."""
    # On a CPU, a decoder suggests the size beyond which larger batches gain nothing; GPUs differ too much.
    on_gpu = getattr(job.decoder, "device", torch.device("cpu")).type != "cpu"
    return BatchSize(job.decoder, job.options, grows=on_gpu)


def _check_pair(job: Job) -> None:
    if job.reads_tokens:
        source_of(job.decoder)
        check_fit(job.decoder.spec, job.encoder.spec)
    elif job.decoder.spec.embedding_size != job.encoder.spec.embedding_size:
        raise ModelError(
            f"encoder {job.encoder.spec.name} gives embeddings of size {job.encoder.spec.embedding_size}, decoder "
            f"{job.decoder.spec.name} reads size {job.decoder.spec.embedding_size}: they do not fit. Index "
            "your own pictures for this encoder (steerlens neighbours index), or fit a bridge (steerlens bridge fit)."
        )


def decode_cells(
    job: Job, waiting: Sequence[SteeredCell], batch: BatchSize, before: int = 0, total: int | None = None
) -> Iterator[Progress]:
    """Decodes and scores steered cells; the payload of an event is their `FinishedCells`.

    Args:
        job: the job, whose decoder, options and encoder are used.
        waiting: the cells.
        batch: number of pictures decoded at once.
        before: pictures of the job that were decoded before.
        total: pictures of the whole job; by default these cells.
    """
    total = len(waiting) if total is None else total
    conditioning = Conditioning(job.decoder.spec.consumes, torch.stack([steered.conditioning for steered in waiting]))
    seeds, done = [steered.cell.seed for steered in waiting], float(before)
    for event in decode_in_batches(job.decoder, conditioning, seeds, job.options, batch):
        decoded = event.payload
        if isinstance(decoded, Decoded):
            yield Progress("re-encoding", done, total, "pictures")
            of_batch = waiting[decoded.first : decoded.first + len(decoded.pictures)]
            finished = FinishedCells(_results(job, of_batch, decoded.pictures, batch))
            yield Progress("decoding", before + event.done, total, "pictures", finished)
        else:
            yield Progress("decoding", before + event.done, total, "pictures")
        done = before + event.done


def _results(job: Job, cells: Sequence[SteeredCell], pictures: Tensor, batch: BatchSize) -> tuple[CellResult, ...]:
    def of_rows(start: int, stop: int) -> list[CellResult]:
        return list(_score(job.encoder, job.decoder, cells[start:stop], pictures[start:stop]))

    return tuple(computed_in_batches(of_rows, len(cells), batch, "embedding one decoded picture"))


def _score(encoder: Encoder, decoder: Decoder, cells: Sequence[SteeredCell], pictures: Tensor) -> Iterator[CellResult]:
    inputs = encoder.preprocess_tensor(pictures)
    reencoded = encoder.embed(inputs).float().cpu()
    # The conditioning of the decoded pictures themselves; fidelity compares it with the conditioning that was decoded.
    redrawn = reencoded if decoder.spec.consumes == "image_embedding" else None
    if redrawn is None:
        redrawn = clean_conditioning(encoder, decoder, inputs).values
    for steered, array, embedding, drawn in zip(cells, eight_bit(pictures), reencoded, redrawn, strict=True):
        conditioning = steered.conditioning
        yield CellResult(
            cell=steered.cell,
            rho=steered.rho,
            file=png_bytes(Image.fromarray(array)),
            conditioning=conditioning.mean(dim=0) if conditioning.ndim == 2 else conditioning,
            reencoded=embedding,
            similarity=float(cosine_similarity(embedding, steered.target)),
            steered_similarity=steered.steered_similarity,
            fidelity=flat_cosine(drawn, conditioning),
            direct_cosine=steered.direct_cosine,
            change_cosine=steered.change_cosine,
        )
