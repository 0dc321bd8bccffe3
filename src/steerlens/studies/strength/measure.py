"""The strength study: how hard to steer, for pictures that say what a head does and that still are of this world?

For every picture, head and strength of a sweep: the steered embedding, and the decoded picture embedded again. Beside
them the effects of ablation. This file measures: it stores embeddings, nothing derived from them;
`strength_summary.py` makes every figure from the stored parts.

References: R. Takatsuki et al., arXiv 2504.13763 (steering may change what a representation holds).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from steerlens.decoders.base import DecodeOptions
from steerlens.decoders.redecoding import shown_pictures
from steerlens.errors import UsageError
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.strength import Strength
from steerlens.progress import Progress, part_of
from steerlens.studies.importance.measure import (
    Bench,
    ImportanceOptions,
    judged_targets,
    other_of,
    part_name,
    redecode_jobs,
    subject_effects,
)
from steerlens.studies.shared.effects import Ablation
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.stratified import stratified_heads
from steerlens.studies.shared.subjects import Subject, SubjectSet, image_hash

CLEAN = "clean"
"""The name under which the unsteered embedding is decoded."""

PICTURES = "pictures"
"""The part that holds the pictures to look at."""

SHOWN_HEADS = 4


@dataclass(frozen=True)
class StrengthOptions:
    """What the study measures.

    Attributes:
        decode: how to decode.
        strengths: the sweep.
        seeds: seeds of the decoder, the same for all heads and strengths; scores are averaged over them.
        ablation: what replaces a head's write.
        heads_per_picture: heads whose pictures are decoded, a random sample with its share of every layer, the same for
            all pictures and strengths; None for all. What needs no decoder is measured for all heads.
        batch: rows of a forward pass.
    """

    decode: DecodeOptions
    strengths: tuple[Strength, ...]
    seeds: tuple[int, ...] = (0,)
    ablation: Ablation = "mean"
    heads_per_picture: int | None = None
    batch: int = 64

    def __post_init__(self) -> None:
        if len(set(self.strengths)) < 2 or len(set(self.strengths)) < len(self.strengths):
            raise UsageError("a sweep needs at least 2 strengths, and each of them once.")
        if not self.seeds:
            raise UsageError("the decoder needs at least 1 seed.")

    def columns(self, bench: Bench) -> list[int]:
        """Places of the heads whose pictures are decoded."""
        return stratified_heads(bench.sites, self.heads_per_picture, self.seeds[0])


def measure(bench: Bench, subjects: SubjectSet, options: StrengthOptions, folder: StudyFolder) -> Iterator[Progress]:
    """Measures every picture, those to choose on and those to report on, at every strength.

    Raises:
        UsageError: if all pictures of one half are of one concept, or one has no target.
        StoreError: if a part cannot be written or read; finished parts stay.
    """
    columns = options.columns(bench)
    effects = ImportanceOptions(options.decode, ablations=(options.ablation,), batch=options.batch)
    work = [
        (part_name(stage, subject), subject, other_of(side, place))
        for stage, side in (("choose", subjects.chosen), ("report", subjects.reported))
        for place, subject in enumerate(side)
    ]
    per_subject = (len(columns) * len(options.strengths) + 1) * len(options.seeds)
    total, done = per_subject * len(work), per_subject * sum(folder.has(name) for name, _, _ in work)
    yield Progress("decoding", done, total, "pictures")
    for name, subject, other in work:
        if folder.has(name):
            continue
        tensors = subject_effects(bench, subject, other, effects) | judged_targets(bench.judge, subject)
        steered = steered_embeddings(bench, subject, options.strengths)
        jobs = [(CLEAN, seed, tensors["clean"][None]) for seed in options.seeds]
        for strength, (embeddings, rho) in zip(options.strengths, steered, strict=True):
            tensors |= {f"asked.{strength}": embeddings, f"rho.{strength}": rho}
            jobs += [(str(strength), seed, embeddings[columns]) for seed in options.seeds]
        decoding = redecode_jobs(bench.pair, jobs, options.decode, bench.judge)
        tensors |= yield from part_of(decoding, "decoding", done, total)
        done += sum(len(rows) for _, _, rows in jobs)
        folder.add(name, tensors)


def steered_embeddings(
    bench: Bench, subject: Subject, strengths: Sequence[Strength]
) -> list[tuple[Float[Tensor, "N E"], Float[Tensor, "N"]]]:
    """What each strength asks the decoder for, head by head, and the `rho` that it amounts to."""
    trace = bench.encoder.trace(bench.encoder.preprocess([subject.image]))
    lenses = [SteeringLens(bench.encoder, strength) for strength in strengths]
    return [
        (
            lens.embeddings(trace, bench.sites)[0].float().cpu(),
            lens.relative_strength(trace, bench.sites)[0].float().cpu(),
        )
        for lens in lenses
    ]


def measure_pictures(
    bench: Bench, subject: Subject, options: StrengthOptions, folder: StudyFolder
) -> Iterator[Progress]:
    """Decodes a few heads of one picture at every strength, to look at: part `pictures`.

    The part holds `clean` (height, width, 3), `shown` (heads, strengths, height, width, 3) and `heads`, their places.

    Raises:
        StoreError: if a part cannot be written or read; finished parts stay.
    """
    columns = options.columns(bench)
    heads = [columns[round(place)] for place in torch.linspace(0, len(columns) - 1, SHOWN_HEADS).tolist()]
    heads = list(dict.fromkeys(heads))
    yield Progress("pictures", 0, 1)
    if not folder.has(PICTURES):
        steered = [rows[heads] for rows, _ in steered_embeddings(bench, subject, options.strengths)]
        clean = bench.encoder.embed(bench.encoder.preprocess([subject.image])).float().cpu()
        embeddings = torch.cat([clean, torch.stack(steered, dim=1).flatten(0, 1)])
        pictures = shown_pictures(bench.pair.decoder, embeddings, [options.seeds[0]] * len(embeddings), options.decode)
        shown: UInt8[Tensor, "heads strengths height width 3"] = pictures[1:].unflatten(0, (len(heads), len(steered)))
        folder.add(PICTURES, {"clean": pictures[0], "shown": shown, "heads": torch.tensor(heads)})
    yield Progress("pictures", 1, 1)


def held_apart(bench: Bench, subjects: SubjectSet) -> Float[Tensor, "K E"]:
    """Embeddings of the reference pictures that are not studied themselves."""
    studied = {image_hash(subject.image) for subject in (*subjects.chosen, *subjects.reported)}
    rows = [row for row, image in enumerate(subjects.reference) if image_hash(image) not in studied]
    return bench.reference.embeddings.cpu()[rows]
