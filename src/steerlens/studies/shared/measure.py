"""Measuring a picture: effects of ablation and scores of the writes, which need no decoder; decoding in batches."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.decoders import DecodeOptions, redecode
from steerlens.encoders import Encoder, Prefix, record_prefix
from steerlens.lenses import visible_norm, writes
from steerlens.progress import Progress, run_to_end
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.studies.shared.ablation import ABLATIONS, Ablated, Ablation, ablate, attribution, similarity_with
from steerlens.studies.shared.bench import Bench
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.measurements import PicturePart
from steerlens.studies.shared.subjects import Subject
from steerlens.studies.shared.targets import INPUT, OTHER, name_rank, subject_targets
from steerlens.zoo import Pair

SELECTION, REPORT = "choose", "report"
"""Stages of a study, by which its parts are named: settings are chosen in the first, results reported in the second."""


class HasId(Protocol):
    """A picture or pair with an id that is unique in the study."""

    @property
    def id(self) -> str:
        """The id."""
        ...


def part_name(stage: str, subject: HasId) -> str:
    """Name of a subject's part."""
    return f"{stage}-{subject.id}"


def read_parts(folder: StudyFolder, stage: str, subjects: Sequence[Subject]) -> list[PicturePart]:
    """Loads the parts of a stage, one per picture.

    Raises:
        StoreError: if one of them cannot be read.
    """
    return folder.read_all(PicturePart, (part_name(stage, subject) for subject in subjects))


@torch.no_grad()
def _write_scores(bench: Bench, subject: Subject) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Visible norms of the heads' writes, and their cosines with the final residual."""
    encoder = bench.encoder
    trace = bench.trace(subject.image)
    directions, final = bench.components.directions, trace.final.float()[:, None]
    written = writes(encoder, trace, bench.sites, directions).float()
    centred = encoder.spec.centred
    norm = visible_norm(written, centred=centred)[0]
    if centred:
        written, final = (side - side.mean(dim=-1, keepdim=True) for side in (written, final))
    return norm, cosine_similarity(written.flatten(2), final.flatten(2))[0]


def measure_effects(
    bench: Bench,
    subject: Subject,
    other: Subject,
    *,
    ablations: Sequence[Ablation] = ABLATIONS,
    given: str = "",
    batch: int = 64,
) -> PicturePart:
    """Measures everything that needs no decoder: targets, effects of ablation, scores of the writes themselves.

    Args:
        bench: the models.
        subject: the picture.
        other: a picture of another concept, from which resampling takes the writes.
        ablations: ablations to measure.
        given: a text that serves as a further target of signed effects.
        batch: rows of a forward pass.

    Raises:
        UsageError: if the model does not know the given text.
    """
    encoder = bench.encoder
    inputs = encoder.preprocess([subject.image])
    prefix, others = record_prefix(encoder, inputs), record_prefix(encoder, encoder.preprocess([other.image]))
    targets = subject_targets(bench.pair, subject, given)
    sites = (*bench.sites, *bench.remainders)
    ablated = {ablation: _ablated(bench, prefix, others, sites, ablation, batch) for ablation in ablations}
    first_order = {
        (str(ablation), name): attribution(
            encoder,
            inputs,
            prefix,
            bench.sites,
            similarity_with(target[None]),
            ablation,
            means=bench.means,
            others=others,
            sae=bench.sae,
        )[0]
        for ablation in ablations
        for name, target in targets.items()
    }
    N = len(bench.sites)
    norm, direct_cosine = _write_scores(bench, subject)
    rank = name_rank(bench.pair, subject, prefix.embedding[0].float())
    return PicturePart(
        clean=_host(prefix.embedding[0].float()),
        targets={name: _host(target) for name, target in targets.items()},
        total={ablation: _host(result.total[0, :N].float()) for ablation, result in ablated.items()},
        direct={ablation: _host(result.direct[0, :N].float()) for ablation, result in ablated.items()},
        remainder={ablation: _host(result.total[0, N:].float()) for ablation, result in ablated.items()}
        if bench.remainders
        else {},
        first_order={key: _host(effect) for key, effect in first_order.items()},
        norm=_host(norm),
        direct_cosine=_host(direct_cosine),
        name_rank=None if rank is None else torch.tensor(float(rank)),
    )


def measure_remainder(
    bench: Bench, subject: Subject, other: Subject, *, ablations: Sequence[Ablation] = ABLATIONS, batch: int = 64
) -> dict[Ablation, Float[Tensor, "2 E"]]:
    """Measures the ablation of the autoencoder's error and bias alone, for a part that lacks it.

    Args:
        bench: the models.
        subject: the picture.
        other: a picture of another concept, from which resampling takes the writes.
        ablations: ablations to measure.
        batch: rows of a forward pass.
    """
    encoder = bench.encoder
    prefix, others = (record_prefix(encoder, encoder.preprocess([shown.image])) for shown in (subject, other))
    return {
        ablation: _host(_ablated(bench, prefix, others, bench.remainders, ablation, batch).total[0].float())
        for ablation in ablations
    }


def _host(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()


def _ablated(
    bench: Bench, prefix: Prefix, others: Prefix, sites: Sequence[Site], ablation: Ablation, batch: int
) -> Ablated:
    events = ablate(
        bench.encoder, prefix, sites, ablation, means=bench.means, others=others, batch=batch, sae=bench.sae
    )
    return run_to_end(events)


class DecodeJob(NamedTuple):
    """Embeddings to decode with one seed.

    Attributes:
        name: name of their setting.
        seed: of the decoder.
        embeddings: the requested embeddings; their number may differ from job to job.
    """

    name: str
    seed: int
    embeddings: Float[Tensor, "n E"]


@dataclass(frozen=True, eq=False)
class DecodedJobs:
    """Decoded pictures embedded again, by name and seed of their jobs.

    Attributes:
        decoded: by the encoder whose embeddings were decoded.
        judged: by the outside judge; empty without a judge.
    """

    decoded: Mapping[tuple[str, int], Float[Tensor, "n E"]]
    judged: Mapping[tuple[str, int], Float[Tensor, "n F"]]

    def added_to(self, part: PicturePart) -> PicturePart:
        """Copy of a part with these pictures."""
        return replace(part, decoded=self.decoded, judged=self.judged)


def decode_jobs(
    pair: Pair, jobs: Sequence[DecodeJob], options: DecodeOptions, judge: Encoder | None
) -> Generator[Progress, None, DecodedJobs]:
    """Decodes all jobs in common batches and embeds the pictures again; yields progress in pictures.

    Args:
        pair: encoder and decoder.
        jobs: embeddings to decode.
        options: decoding options.
        judge: an outside encoder that embeds the pictures too.

    Returns:
        The embeddings.
    """
    sizes = [len(job.embeddings) for job in jobs]
    embeddings = torch.cat([job.embeddings for job in jobs])
    seeds = [job.seed for job in jobs for _ in range(len(job.embeddings))]

    def by_job(rows: Float[Tensor, "M E"] | None) -> dict[tuple[str, int], Tensor]:
        if rows is None:
            return {}
        return {(job.name, job.seed): own.clone() for job, own in zip(jobs, rows.split(sizes), strict=True)}

    decoded = yield from redecode(pair.encoder, pair.decoder, embeddings, seeds, options, judge=judge)
    return DecodedJobs(by_job(decoded.embeddings), by_job(decoded.judged))


def judged_targets(judge: Encoder | None, subject: Subject) -> dict[str, Float[Tensor, " F"]]:
    """Embeddings by the judge of a picture and of another picture of its concept; empty without a judge."""
    if judge is None:
        return {}
    rows = judge.embed(judge.preprocess(subject.images)).float().cpu()
    return dict(zip((INPUT, OTHER), rows, strict=False))
