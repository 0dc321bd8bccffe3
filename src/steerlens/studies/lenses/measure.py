"""Measurements of the study of candidate lenses: effects of ablation, steered embeddings, decoded pictures, steps.

    towards   P(LN(r + c h))
    away      P(LN(r - c h))
    step t    e + t (e' - e)      towards the embedding e' of another scene

Everything is decoded from the same noise as the unsteered embedding e.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from steerlens.decoders import shown_pictures
from steerlens.progress import Progress, part_of
from steerlens.scenes import to_tensor
from steerlens.studies.lenses.bank import Bank, PictureSource
from steerlens.studies.lenses.options import CandidateLens, LensesOptions
from steerlens.studies.shared.bench import Bench
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.measure import REPORT, DecodeJob, decode_jobs, judged_targets, measure_effects, part_name
from steerlens.studies.shared.neighbours import only_near, opposite
from steerlens.studies.shared.parts import Part, TensorName
from steerlens.studies.shared.settings import LensSetting, lens_embeddings
from steerlens.studies.shared.subjects import Subject, other_concept
from steerlens.studies.shared.transfer import STEPS
from steerlens.studies.shared.undecoded import is_undecoded

CLEAN = "clean"
"""Name under which the unsteered embedding is decoded."""

PICTURES = "pictures"
"""Name of the part with the figure's pictures."""

SHOWN_HEADS, SHOWN_NEIGHBOURS = 4, 3
"""Rows of that figure, and its real pictures on each side."""


@dataclass(frozen=True, eq=False)
class PicturesPart(Part):
    """Pictures of a few heads of one picture, for a figure.

    Attributes:
        heads: indices of the heads among all heads.
        pairs: decoded towards and away from the write.
        gained: real pictures near the changed embedding and not near the opposite change, if there is a bank.
        lost: those near the opposite change alone.
    """

    WHAT: ClassVar[str] = "pictures of candidate lenses"

    heads: Annotated[Int64[Tensor, " rows"], TensorName("heads")]
    pairs: Annotated[UInt8[Tensor, "rows 2 height width 3"], TensorName("pairs")]
    gained: Annotated[UInt8[Tensor, "rows k size size 3"] | None, TensorName("gained", optional=True)] = None
    lost: Annotated[UInt8[Tensor, "rows k size size 3"] | None, TensorName("lost", optional=True)] = None


def step_name(step: float) -> str:
    """Name under which a step towards another scene is decoded."""
    return f"step {step:g}"


def measure(
    bench: Bench,
    subjects: Sequence[Subject],
    lenses: Sequence[CandidateLens],
    options: LensesOptions,
    stage: str,
    folder: StudyFolder,
) -> Iterator[Progress]:
    """Measures every picture of a stage with every lens; only reported pictures are decoded with all seeds, and moved.

    Raises:
        UsageError: if all pictures show the same concept, or a picture has no target.
        StoreError: if a part cannot be written or read; finished parts stay.
    """
    if is_undecoded(bench.pair):
        yield from _measure_undecoded(bench, subjects, lenses, options, stage, folder)
        return
    columns, reported = options.columns(bench.sites), stage == REPORT
    seeds = options.seeds if reported else options.seeds[:1]
    requested = unique(setting for lens in lenses for setting in lens.requested)
    decoded = unique(setting for lens in lenses for setting in lens.decoded)
    names = [part_name(stage, subject) for subject in subjects]
    per_subject = (len(columns) * len(decoded) + 1 + len(STEPS) * reported) * len(seeds)
    total, done = per_subject * len(names), per_subject * sum(map(folder.has, names))
    what = "decoding" if reported else "choosing"
    yield Progress(what, done, total, "pictures")
    for place, (name, subject) in enumerate(zip(names, subjects, strict=True)):
        if folder.has(name):
            continue
        other = other_concept(subjects, place)
        part = measure_effects(bench, subject, other, ablations=(options.ablation,), batch=options.batch)
        embeddings = steered(bench, subject, requested)
        clean = part.clean[None]
        jobs = [DecodeJob(CLEAN, seed, clean) for seed in seeds]
        jobs += [
            DecodeJob(str(setting), seed, embeddings[str(setting)][columns]) for setting in decoded for seed in seeds
        ]
        if reported:
            goal = bench.encoder.embed(bench.encoder.preprocess([other.image])).float().cpu()
            steps = {step_name(step): clean + step * (goal - clean) for step in STEPS}
            jobs += [DecodeJob(step, seed, rows) for step, rows in steps.items() for seed in seeds]
            embeddings |= steps
        part = replace(part, requested=embeddings, judged_targets=judged_targets(bench.judge, subject))
        result = yield from part_of(decode_jobs(bench.pair, jobs, options.decode, bench.judge), what, done, total)
        done += per_subject
        folder.keep(name, result.added_to(part))


def _measure_undecoded(
    bench: Bench,
    subjects: Sequence[Subject],
    lenses: Sequence[CandidateLens],
    options: LensesOptions,
    stage: str,
    folder: StudyFolder,
) -> Iterator[Progress]:
    """Measures effects and requested embeddings alone."""
    requested = unique(setting for lens in lenses for setting in lens.requested)
    for place, subject in enumerate(subjects):
        name = part_name(stage, subject)
        if not folder.has(name):
            other = other_concept(subjects, place)
            part = measure_effects(bench, subject, other, ablations=(options.ablation,), batch=options.batch)
            folder.keep(name, replace(part, requested=steered(bench, subject, requested)))
        what = "measuring" if stage == REPORT else "choosing"
        yield Progress(what, place + 1, len(subjects), "pictures")


def steered(bench: Bench, subject: Subject, settings: Sequence[LensSetting]) -> dict[str, Float[Tensor, "N E"]]:
    """Requested embeddings of every head, by setting."""
    trace = bench.encoder.trace(bench.encoder.preprocess([subject.image]))
    return {
        str(setting): lens_embeddings(bench.encoder, trace, bench.sites, setting, bench.reference)[0].float().cpu()
        for setting in settings
    }


def unique(settings: Iterator[LensSetting]) -> list[LensSetting]:
    """Settings in order, each once."""
    return list(dict.fromkeys(settings))


def measure_pictures(
    bench: Bench,
    subject: Subject,
    contrast: CandidateLens,
    retrieval: CandidateLens | None,
    bank: Bank | None,
    source: PictureSource | None,
    options: LensesOptions,
    folder: StudyFolder,
) -> Iterator[Progress]:
    """Decodes a few heads of one picture, and takes real pictures along their changes, for a figure.

    Raises:
        StoreError: if the part cannot be written; finished parts stay.
    """
    yield Progress("pictures", int(folder.has(PICTURES)), 1)
    if folder.has(PICTURES):
        return
    columns = options.columns(bench.sites)
    heads = [columns[round(place)] for place in torch.linspace(0, len(columns) - 1, SHOWN_HEADS + 2).tolist()[1:-1]]
    heads = list(dict.fromkeys(heads))
    settings = unique(iter((*contrast.requested, *(() if retrieval is None else retrieval.requested))))
    embeddings = steered(bench, subject, settings)
    pairs = torch.stack([embeddings[str(setting)][heads] for setting in contrast.requested], dim=1)
    flat = pairs.flatten(0, 1)
    shown = shown_pictures(bench.pair.decoder, flat, [options.seeds[0]] * len(flat), options.decode)
    part = PicturesPart(torch.tensor(heads), shown.unflatten(0, (-1, 2)))
    if retrieval is not None and bank is not None and source is not None:
        clean = bench.encoder.embed(bench.encoder.preprocess([subject.image]))[0].float().cpu()
        changed = embeddings[str(retrieval.towards)][heads]
        against = opposite(clean, changed)
        gained, lost = (
            _thumbnails(source, only_near(first, second, bank.embeddings, retrieval.k, SHOWN_NEIGHBOURS))
            for first, second in ((changed, against), (against, changed))
        )
        part = replace(part, gained=gained, lost=lost)
    folder.keep(PICTURES, part)
    yield Progress("pictures", 1, 1)


def _thumbnails(source: PictureSource, places: Int64[Tensor, "rows k"]) -> UInt8[Tensor, "rows k size size 3"]:
    images = source.read(places.flatten().tolist())
    pixels = torch.stack([to_tensor(image)[:3].permute(1, 2, 0) for image in images])
    return pixels.unflatten(0, tuple(places.shape)).contiguous()
