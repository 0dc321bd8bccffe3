"""Measurements of the strength study: embeddings and pictures of every head at every strength, effects of ablation.

This file stores embeddings and derives nothing from them; `summary.py` computes every figure from the parts.

References: R. Takatsuki et al., arXiv 2504.13763 (steering may change the content of a representation).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from steerlens.decoders import shown_pictures
from steerlens.lenses import SteeringLens, Strength
from steerlens.progress import Progress, part_of
from steerlens.studies.shared.bench import Bench
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.measure import (
    REPORT,
    SELECTION,
    DecodeJob,
    decode_jobs,
    judged_targets,
    measure_effects,
    part_name,
)
from steerlens.studies.shared.parts import Part, TensorName
from steerlens.studies.shared.subjects import Subject, SubjectSet, image_hash, other_concept
from steerlens.studies.strength.options import StrengthOptions

CLEAN = "clean"
"""Name under which the unsteered embedding is decoded."""

PICTURES = "pictures"
"""Name of the part with the figure's pictures."""

SHOWN_HEADS = 4
"""Number of heads in that figure."""


@dataclass(frozen=True, eq=False)
class SweepPicturesPart(Part):
    """Pictures of a few heads of one picture, for a figure.

    Attributes:
        clean: decoded without steering.
        shown: every head at every strength.
        heads: indices of the heads among all heads.
    """

    WHAT: ClassVar[str] = "pictures of the strength study"

    clean: Annotated[UInt8[Tensor, "height width 3"], TensorName("clean")]
    shown: Annotated[UInt8[Tensor, "heads strengths height width 3"], TensorName("shown")]
    heads: Annotated[Int64[Tensor, " heads"], TensorName("heads")]


def measure(bench: Bench, subjects: SubjectSet, options: StrengthOptions, folder: StudyFolder) -> Iterator[Progress]:
    """Measures every picture of both halves at every strength.

    Raises:
        UsageError: if all pictures of a half show the same concept, or a picture has no target.
        StoreError: if a part cannot be written or read; finished parts stay.
    """
    columns = options.columns(bench)
    work = [
        (part_name(stage, subject), subject, other_concept(half, place))
        for stage, half in ((SELECTION, subjects.selection), (REPORT, subjects.reported))
        for place, subject in enumerate(half)
    ]
    per_subject = (len(columns) * len(options.strengths) + 1) * len(options.seeds)
    total, done = per_subject * len(work), per_subject * sum(folder.has(name) for name, _, _ in work)
    yield Progress("decoding", done, total, "pictures")
    for name, subject, other in work:
        if folder.has(name):
            continue
        part = measure_effects(bench, subject, other, ablations=(options.ablation,), batch=options.batch)
        steered = steered_embeddings(bench, subject, options.strengths)
        part = replace(
            part,
            judged_targets=judged_targets(bench.judge, subject),
            requested={strength: embeddings for strength, (embeddings, _) in steered.items()},
            rho={strength: rho for strength, (_, rho) in steered.items()},
        )
        jobs = [DecodeJob(CLEAN, seed, part.clean[None]) for seed in options.seeds]
        jobs += [
            DecodeJob(strength, seed, embeddings[columns])
            for strength, embeddings in part.requested.items()
            for seed in options.seeds
        ]
        decoding = decode_jobs(bench.pair, jobs, options.decode, bench.judge)
        decoded = yield from part_of(decoding, "decoding", done, total)
        done += per_subject
        folder.keep(name, decoded.added_to(part))


def steered_embeddings(
    bench: Bench, subject: Subject, strengths: Sequence[Strength]
) -> dict[str, tuple[Float[Tensor, "N E"], Float[Tensor, "N"]]]:
    """Requested embeddings of every head, and the `rho` equivalent to the strength, by strength."""
    trace = bench.encoder.trace(bench.encoder.preprocess([subject.image]))
    lenses = {str(strength): SteeringLens(bench.encoder, strength) for strength in strengths}
    return {
        strength: (
            lens.embeddings(trace, bench.sites)[0].float().cpu(),
            lens.relative_strength(trace, bench.sites)[0].float().cpu(),
        )
        for strength, lens in lenses.items()
    }


def measure_pictures(
    bench: Bench, subject: Subject, options: StrengthOptions, folder: StudyFolder
) -> Iterator[Progress]:
    """Decodes a few heads of one picture at every strength, for a figure.

    Raises:
        StoreError: if the part cannot be written or read; finished parts stay.
    """
    columns = options.columns(bench)
    heads = [columns[round(place)] for place in torch.linspace(0, len(columns) - 1, SHOWN_HEADS).tolist()]
    heads = list(dict.fromkeys(heads))
    yield Progress("pictures", 0, 1)
    if not folder.has(PICTURES):
        steered = [rows[heads] for rows, _ in steered_embeddings(bench, subject, options.strengths).values()]
        clean = bench.encoder.embed(bench.encoder.preprocess([subject.image])).float().cpu()
        embeddings = torch.cat([clean, torch.stack(steered, dim=1).flatten(0, 1)])
        pictures = shown_pictures(bench.pair.decoder, embeddings, [options.seeds[0]] * len(embeddings), options.decode)
        shown = pictures[1:].unflatten(0, (len(heads), len(steered)))
        folder.keep(PICTURES, SweepPicturesPart(pictures[0], shown, torch.tensor(heads)))
    yield Progress("pictures", 1, 1)


def unstudied(subjects: SubjectSet) -> list[int]:
    """Indices of the reference pictures that are not studied themselves."""
    studied = {image_hash(subject.image) for subject in subjects.everyone}
    return [row for row, image in enumerate(subjects.reference) if image_hash(image) not in studied]


def unstudied_references(bench: Bench, subjects: SubjectSet) -> Float[Tensor, "K E"]:
    """Embeddings of the reference pictures that are not studied themselves."""
    return bench.reference.embeddings.cpu()[unstudied(subjects)]
