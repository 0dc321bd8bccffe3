"""Measurements of the importance study: embeddings for the lenses' scores, and effects of ablation.

Settings compete on the concepts of the selection. The best setting of each lens is frozen and measured, with several
seeds and random-direction controls, on the concepts to report on, together with plain settings and one factor for all
heads. This file stores embeddings and derives nothing from them; `summary.py` computes every figure from the parts.

References: R. Takatsuki et al., arXiv 2504.13763, study 1.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.lenses import TotalLens, clean_pass, control_direction, steer_directions
from steerlens.progress import Progress, part_of
from steerlens.studies.importance.options import ImportanceOptions
from steerlens.studies.shared.ablation import Ablation
from steerlens.studies.shared.bench import Bench
from steerlens.studies.shared.candidates import (
    CENTRED,
    NEUTRAL,
    ONE_FACTOR,
    PLAIN,
    TOTAL_LENS,
    WEAKER,
    candidate_name,
)
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.measure import (
    REPORT,
    SELECTION,
    DecodeJob,
    decode_jobs,
    judged_targets,
    measure_effects,
    measure_remainder,
    part_name,
)
from steerlens.studies.shared.measurements import CONTROL, PicturePart
from steerlens.studies.shared.oracle import ORACLES, oracle_embeddings, oracle_name
from steerlens.studies.shared.remainder import complete_parts
from steerlens.studies.shared.settings import LensSetting, lens_embeddings, relative_strengths
from steerlens.studies.shared.subjects import Subject, SubjectSet, other_concept
from steerlens.trace import Trace


@dataclass(frozen=True)
class _Decoding:
    """A setting and its decoder seeds; without seeds, only embeddings are stored."""

    setting: LensSetting
    seeds: tuple[int, ...] = ()


def measure_selection(
    bench: Bench, subjects: SubjectSet, options: ImportanceOptions, folder: StudyFolder
) -> Iterator[Progress]:
    """Measures every candidate setting, with one seed, on the pictures of the selection."""
    candidates = (*options.steering, *options.diffusion)
    seeds = options.seeds[:1] if options.decoding else ()
    decodings = {candidate_name(setting): _Decoding(setting, seeds) for setting in candidates}
    yield from _measure(bench, subjects.selection, options, decodings, None, folder, SELECTION)


def measure_report(
    bench: Bench,
    subjects: SubjectSet,
    options: ImportanceOptions,
    chosen: Sequence[LensSetting],
    folder: StudyFolder,
    *,
    undecoded: Sequence[LensSetting] = (),
    oracle: Ablation | None = None,
) -> Iterator[Progress]:
    """Measures frozen settings, plain ones and one factor for all heads, with all seeds, on the pictures to report on.

    Centred settings, a neutral base, controls and the oracle are decoded with one seed. Without `extras`, the first two
    and one factor for all heads are decoded only if they were chosen.

    Args:
        bench: the models.
        subjects: the pictures.
        options: options of the study.
        chosen: settings chosen by scores of decoded pictures.
        folder: the study's folder.
        undecoded: settings chosen by scores of requested embeddings; only their embeddings are stored.
        oracle: ablation whose true total effects are amplified and decoded; None for no oracle.
    """
    always, extras = (*PLAIN, *chosen), (*CENTRED, NEUTRAL)
    if options.extras:
        always = (*always, ONE_FACTOR)
    embedded = {str(setting): _Decoding(setting) for setting in (*undecoded, *extras, ONE_FACTOR, WEAKER, *always)}
    if not options.decoding:
        yield from _measure(bench, subjects.reported, options, embedded, None, folder, REPORT)
        return
    once = {str(setting): _Decoding(setting, options.seeds[:1]) for setting in extras if options.extras}
    decodings = embedded | once | {str(setting): _Decoding(setting, options.seeds) for setting in always}
    yield from _measure(bench, subjects.reported, options, decodings, options.seeds[0], folder, REPORT, oracle)


def measure_remainders(
    bench: Bench, subjects: Sequence[Subject], options: ImportanceOptions, folder: StudyFolder
) -> Iterator[Progress]:
    """Measures the error and the bias of the autoencoder for reported pictures whose parts lack them.

    Args:
        bench: models of the study; nothing is measured without an autoencoder.
        subjects: the reported pictures.
        options: options of the study.
        folder: folder of the study, which holds the parts.

    Raises:
        StoreError: if a part cannot be read or written.
        ModelError: if the encoder fails.
    """

    def completed(place: int, part: PicturePart) -> PicturePart:
        subject, other = subjects[place], other_concept(subjects, place)
        remainder = measure_remainder(bench, subject, other, ablations=options.ablations, batch=options.batch)
        return replace(part, remainder=remainder)

    if bench.remainders:
        names = [part_name(REPORT, subject) for subject in subjects]
        yield from complete_parts(folder, PicturePart, names, lambda part: not part.remainder, completed, "pictures")


def _measure(
    bench: Bench,
    subjects: Sequence[Subject],
    options: ImportanceOptions,
    decodings: Mapping[str, _Decoding],
    control_seed: int | None,
    folder: StudyFolder,
    stage: str,
    oracle: Ablation | None = None,
) -> Iterator[Progress]:
    work = [(subject, other_concept(subjects, place)) for place, subject in enumerate(subjects)]
    n_decodings = sum(len(decoding.seeds) for decoding in decodings.values()) + (control_seed is not None)
    n_decodings += 0 if oracle is None else len(ORACLES)
    per_subject = len(bench.sites) * max(1, n_decodings)
    what = "decoding" if n_decodings else "measuring"
    total = len(work) * per_subject
    done = sum(folder.has(part_name(stage, subject)) for subject in subjects) * per_subject
    yield Progress(f"{what} to {stage}", done, total, "pictures" if n_decodings else bench.components.words)
    for subject, other in work:
        if folder.has(part_name(stage, subject)):
            continue
        part = measure_effects(
            bench, subject, other, ablations=options.ablations, given=options.given, batch=options.batch
        )
        trace = bench.trace(subject.image)
        requested = {
            name: lens_embeddings(
                bench.encoder, trace, bench.sites, decoding.setting, bench.reference, bench.components.directions
            )[0]
            for name, decoding in decodings.items()
        }
        if stage == REPORT:
            requested[TOTAL_LENS] = _total_effects(bench, subject, trace)
        jobs = [
            DecodeJob(name, seed, requested[name]) for name, decoding in decodings.items() for seed in decoding.seeds
        ]
        if control_seed is not None:
            jobs.append(DecodeJob(CONTROL, control_seed, _controls(bench, trace)))
        if oracle is not None:
            amplified = {
                oracle_name(kind): oracle_embeddings(part.clean, part.total[oracle], kind).to(trace.embedding)
                for kind in ORACLES
            }
            requested |= amplified
            jobs += [DecodeJob(name, options.seeds[0], embeddings) for name, embeddings in amplified.items()]
        if jobs:
            decoding = decode_jobs(bench.pair, jobs, options.decode, bench.judge)
            part = (yield from part_of(decoding, f"{what} to {stage}", done, total)).added_to(part)
        done += per_subject
        part = replace(part, requested=requested, judged_targets=judged_targets(bench.judge, subject))
        folder.keep(part_name(stage, subject), part)
        if not jobs:
            yield Progress(f"{what} to {stage}", done, total, bench.components.words)


def _total_effects(bench: Bench, subject: Subject, trace: Trace) -> Float[Tensor, "N E"]:
    """Embeddings with each head scaled as in the plain Steering Lens, everything after it reacting."""
    clean = clean_pass(bench.encoder, bench.encoder.preprocess([subject.image]), trace)
    lens = TotalLens(bench.encoder, PLAIN[0].strength or "rho=1", bench.components.directions)
    return lens.embeddings(clean, bench.sites)[0].float()


def _controls(bench: Bench, trace: Trace) -> Float[Tensor, "N E"]:
    """Embeddings of random directions, each steered exactly as strongly as its head in the plain setting."""
    directions = bench.components.directions
    rhos = relative_strengths(bench.encoder, trace, bench.sites, PLAIN[0], bench.reference, directions)
    controls = torch.stack([control_direction(site, 0, trace.final[0]) for site in bench.sites])
    return steer_directions(bench.encoder, trace, controls[None], rhos)[0].float()
