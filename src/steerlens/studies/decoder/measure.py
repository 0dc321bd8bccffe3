"""Measurements of the decoder study: the same steered embeddings, decoded at every setting of a sweep.

The settings vary the number of steps, the guidance scale, the sampler, and the interval with guidance. The reference is
the default setting with many steps and its own seeds. This file stores embeddings and derives nothing from them;
`summary.py` computes every figure from the parts.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from steerlens.decoders import shown_pictures
from steerlens.encoders import Encoder
from steerlens.lenses import SteeringLens, visible_norm
from steerlens.progress import Progress, part_of
from steerlens.sites import Site, all_heads
from steerlens.studies.decoder.options import DecoderOptions, Decoding
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.measure import DecodedJobs, DecodeJob, decode_jobs, judged_targets
from steerlens.studies.shared.parts import Part, TensorName, TensorNames, no_tensors
from steerlens.studies.shared.sampling import stratified_heads
from steerlens.studies.shared.subjects import Subject
from steerlens.studies.shared.targets import INPUT, OTHER, TARGETS, subject_targets
from steerlens.zoo import Pair

PICTURES = "pictures"
"""Name of the part with the figure's pictures."""

SHOWN_HEADS, SHOWN_SEEDS = 4, 3


@dataclass(frozen=True, eq=False)
class SubjectPart(Part):
    """Steered embeddings of a subject and the targets of their pictures; N sampled heads.

    Attributes:
        clean: embedding of the picture.
        requested: steered embeddings.
        targets: targets by name; empty if pictures are compared with the input alone.
        judged_targets: embeddings by the judge of the picture and of another picture of its concept.
        norm: visible norm of each head's write; older parts lack it.
        layer: number of each head's layer; older parts lack it.
    """

    WHAT: ClassVar[str] = "subjects of the decoder study"

    clean: Annotated[Float[Tensor, "E"], TensorName("clean")]
    requested: Annotated[Float[Tensor, "N E"], TensorName("asked")]
    targets: Annotated[Mapping[str, Float[Tensor, "E"]], TensorNames("{}", TARGETS)] = field(default_factory=no_tensors)
    judged_targets: Annotated[Mapping[str, Float[Tensor, " F"]], TensorNames("judge.{}", (INPUT, OTHER))] = field(
        default_factory=no_tensors
    )
    norm: Annotated[Float[Tensor, "N"] | None, TensorName("norm", optional=True)] = None
    layer: Annotated[Float[Tensor, "N"] | None, TensorName("layer", optional=True)] = None


@dataclass(frozen=True, eq=False)
class SettingPart(Part):
    """Pictures of a subject at one setting, embedded again; S seeds.

    Attributes:
        decoded: embeddings by the encoder.
        judged: embeddings by the judge, or None.
        seconds: time to decode and embed one picture.
    """

    WHAT: ClassVar[str] = "settings of the decoder study"

    decoded: Annotated[Float[Tensor, "S N E"], TensorName("made")]
    seconds: Annotated[Float[Tensor, ""], TensorName("seconds")]
    judged: Annotated[Float[Tensor, "S N F"] | None, TensorName("judge", optional=True)] = None


@dataclass(frozen=True, eq=False)
class SeedPicturesPart(Part):
    """Pictures of a few heads of a subject with a few seeds, for a figure.

    Attributes:
        default: pictures at the default setting.
        reference: pictures of the reference.
        heads: indices of the heads in the sample.
    """

    WHAT: ClassVar[str] = "pictures of the decoder study"

    default: Annotated[UInt8[Tensor, "heads seeds height width 3"], TensorName("default")]
    reference: Annotated[UInt8[Tensor, "heads seeds height width 3"], TensorName("reference")]
    heads: Annotated[Int64[Tensor, " heads"], TensorName("heads")]


def sampled_heads(pair: Pair, options: DecoderOptions) -> tuple[Site, ...]:
    """Heads to decode."""
    sites = all_heads(pair.encoder.spec.n_layers, pair.encoder.spec.n_heads)
    return tuple(sites[place] for place in stratified_heads(sites, options.heads, options.seeds[0]))


def subject_part(subject: Subject) -> str:
    """Name of a `SubjectPart`."""
    return f"subject-{subject.id}"


def decoded_part(decoding: Decoding, subject: Subject) -> str:
    """Name of a `SettingPart`."""
    return f"{decoding.name}-{subject.id}"


def measure(
    pair: Pair, subjects: Sequence[Subject], options: DecoderOptions, judge: Encoder | None, folder: StudyFolder
) -> Iterator[Progress]:
    """Decodes every picture's heads at every setting; progress counts passes of the decoder's network.

    Raises:
        UsageError: if a subject lacks a target.
        StoreError: if a part cannot be written or read; finished parts stay.
    """
    heads, decodings = sampled_heads(pair, options), options.decodings()
    cost = {decoding.name: decoding.setting.passes * len(decoding.seeds) * len(heads) for decoding in decodings}
    total = sum(cost.values()) * len(subjects)
    done = sum(
        cost[decoding.name] * folder.has(decoded_part(decoding, subject))
        for decoding in decodings
        for subject in subjects
    )
    yield Progress("decoding", done, total, "passes")
    for subject in subjects:
        if not folder.has(subject_part(subject)):
            folder.keep(subject_part(subject), _subject(pair, subject, heads, options, judge))
        requested = folder.read(SubjectPart, subject_part(subject)).requested
        for decoding in decodings:
            if folder.has(decoded_part(decoding, subject)):
                continue
            started = time.perf_counter()
            jobs = [DecodeJob("", seed, requested) for seed in decoding.seeds]
            events = decode_jobs(pair, jobs, decoding.setting, judge)
            decoded = yield from part_of(events, "decoding", done, total, "passes", scale=decoding.setting.passes)
            done += cost[decoding.name]
            seconds = (time.perf_counter() - started) / (len(decoding.seeds) * len(heads))
            folder.keep(decoded_part(decoding, subject), _setting(decoded, decoding, seconds))


def _subject(
    pair: Pair, subject: Subject, heads: Sequence[Site], options: DecoderOptions, judge: Encoder | None
) -> SubjectPart:
    trace = pair.encoder.trace(pair.encoder.preprocess([subject.image]))
    return SubjectPart(
        clean=trace.embedding[0].float(),
        requested=SteeringLens(pair.encoder, options.strength).embeddings(trace, heads)[0].float(),
        targets={} if options.target == INPUT else subject_targets(pair, subject),
        judged_targets=judged_targets(judge, subject),
        norm=visible_norm(trace.stack(heads).float(), centred=pair.encoder.spec.centred)[0].cpu(),
        layer=torch.tensor([float(site.layer) for site in heads]),
    )


def _setting(jobs: DecodedJobs, decoding: Decoding, seconds: float) -> SettingPart:
    def by_seed(views: Mapping[tuple[str, int], Tensor]) -> Float[Tensor, "S N E"] | None:
        return torch.stack([views["", seed] for seed in decoding.seeds]) if views else None

    decoded = torch.stack([jobs.decoded["", seed] for seed in decoding.seeds])
    return SettingPart(decoded, torch.tensor(seconds), by_seed(jobs.judged))


def measure_pictures(pair: Pair, subject: Subject, options: DecoderOptions, folder: StudyFolder) -> Iterator[Progress]:
    """Decodes a few heads of one picture with some seeds, at the default setting and as the reference, for a figure.

    Raises:
        StoreError: if a part cannot be written or read; finished parts stay.
    """
    yield Progress("pictures", 0, 1)
    if not folder.has(PICTURES):
        requested = folder.read(SubjectPart, subject_part(subject)).requested
        places = torch.linspace(0, len(requested) - 1, min(SHOWN_HEADS, len(requested))).round().long()

        def shown(decoding: Decoding) -> UInt8[Tensor, "heads seeds height width 3"]:
            seeds = decoding.seeds[:SHOWN_SEEDS]
            rows = requested[places].repeat_interleave(len(seeds), dim=0)
            pictures = shown_pictures(pair.decoder, rows, [*seeds] * len(places), decoding.setting)
            return pictures.unflatten(0, (len(places), len(seeds)))

        reference, default = options.decodings()[:2]
        folder.keep(PICTURES, SeedPicturesPart(shown(default), shown(reference), places))
    yield Progress("pictures", 1, 1)
