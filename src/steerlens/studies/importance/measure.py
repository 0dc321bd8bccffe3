"""Study 1, head importance: does a head's picture say what ablating the head does?

For every picture and head, scores of the lenses on one side, effects of ablation on the other. This file measures: it
stores embeddings, nothing derived from them. `importance_summary.py` makes every figure from the stored parts.

Lens settings compete on the concepts to choose on; the winner of each lens is frozen into the study and measured, with
several seeds and random-direction controls, on the concepts to report on. Beside it stand plain settings, and the
paper's.

References: R. Takatsuki et al., arXiv 2504.13763, study 1.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steerlens.decoders.base import DecodeOptions
from steerlens.decoders.redecoding import redecode
from steerlens.encoders.base import Encoder
from steerlens.encoders.native import NativeEncoder
from steerlens.encoders.prefix import Prefix, record_prefix
from steerlens.errors import UsageError
from steerlens.lenses.controls import control_direction, steer_directions
from steerlens.lenses.strength import visible_norm
from steerlens.progress import Progress, part_of, run_to_end
from steerlens.scores import cosine_similarity
from steerlens.sites import Site, all_heads
from steerlens.studies.shared.candidates import (
    CENTRED,
    NEUTRAL,
    PLAIN,
    PUBLISHED,
    diffusion_candidates,
    steering_candidates,
)
from steerlens.studies.shared.effects import (
    ABLATIONS,
    Ablated,
    Ablation,
    ablate,
    attribution,
    mean_writes,
    similarity_with,
)
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.notions import GIVEN, OTHER, TEXT
from steerlens.studies.shared.settings import (
    LensSetting,
    Reference,
    lens_embeddings,
    reference_of,
    relative_strengths,
)
from steerlens.studies.shared.subjects import Subject, SubjectSet
from steerlens.trace import Trace
from steerlens.zoo.pair import Pair

_REFERENCE_BATCH = 32


@dataclass(frozen=True)
class ImportanceOptions:
    """What the study measures.

    Attributes:
        seeds: seeds of the decoder on the concepts to report on, the same for all heads; on those to choose on, one.
        ablations: which ablations are carried out.
        steering: settings that the Steering Lens may choose from.
        diffusion: settings that the Diffusion Lens may choose from; as many.
        decode: how to decode.
        batch: rows of a forward pass.
        given: a text that signed effects of all pictures may be taken towards, or nothing.
        extras: whether settings that nobody chose (the paper's one factor, centred writes, a neutral base) are decoded
            as well; their embeddings are always there.
    """

    decode: DecodeOptions
    seeds: tuple[int, ...] = (0, 1)
    ablations: tuple[Ablation, ...] = ABLATIONS
    steering: tuple[LensSetting, ...] = steering_candidates()
    diffusion: tuple[LensSetting, ...] = diffusion_candidates()
    batch: int = 64
    given: str = ""
    extras: bool = True

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < 2:
            raise UsageError("the study needs at least 2 seeds, to say how far its scores repeat themselves.")
        if len(set(self.steering)) != len(set(self.diffusion)):
            raise UsageError("both lenses get the same number of settings to choose from.")


@dataclass(frozen=True, eq=False)
class Bench:
    """What every part of the study is measured with.

    Attributes:
        pair: encoder and decoder.
        encoder: its encoder, whose blocks can be hooked.
        sites: the heads.
        means: mean writes on every token, for mean ablation.
        reference: means at the readout tokens, for centred settings.
        judge: an outside encoder, or None.
    """

    pair: Pair
    encoder: NativeEncoder
    sites: tuple[Site, ...]
    means: dict[Site, Tensor]
    reference: Reference
    judge: Encoder | None = None


def require_embeddings(pair: Pair) -> None:
    """Makes sure that a pair's decoder reads what the studies make.

    Raises:
        UsageError: if it reads image tokens.
    """
    if pair.decoder.spec.consumes != "image_embedding":
        raise UsageError(
            f"the decoder of {pair.name} reads image tokens, and studies and profiles steer and decode image "
            "embeddings; take a pair whose decoder reads those (steerlens models says which do)."
        )


def make_bench(pair: Pair, images: Sequence[Image.Image], judge: Encoder | None = None) -> Bench:
    """Opens a pair for a study: its heads, and means over reference pictures.

    Raises:
        UsageError: if the decoder reads no embeddings, the encoder's blocks cannot be hooked, or there is no reference
            picture.
    """
    require_embeddings(pair)
    encoder = pair.encoder
    if not isinstance(encoder, NativeEncoder):
        raise UsageError(
            f"{encoder.spec.name}: this study ablates inside the encoder, which its adapter does not open."
        )
    if not images:
        raise UsageError("the study needs reference pictures to take means from.")
    sites = all_heads(encoder.spec.n_layers, encoder.spec.n_heads)
    starts = range(0, len(images), _REFERENCE_BATCH)
    batches = [encoder.preprocess(images[start : start + _REFERENCE_BATCH]) for start in starts]
    reference = reference_of(encoder, [encoder.trace(batch) for batch in batches], sites)
    return Bench(pair, encoder, sites, mean_writes(encoder, batches, sites), reference, judge)


def part_name(stage: str, subject: Subject) -> str:
    """The name of a subject's part."""
    return f"{stage}-{subject.id}"


@dataclass(frozen=True)
class Job:
    """A setting and the seeds that it is decoded with, none if only its embeddings are wanted."""

    setting: LensSetting
    seeds: tuple[int, ...] = ()


def measure_choice(
    bench: Bench, subjects: SubjectSet, options: ImportanceOptions, folder: StudyFolder
) -> Iterator[Progress]:
    """Measures every candidate setting, with one seed, on the concepts to choose on."""
    candidates = (*options.steering, *options.diffusion)
    jobs = {f"candidate.{setting}": Job(setting, options.seeds[:1]) for setting in candidates}
    work = [(subject, other_of(subjects.chosen, place)) for place, subject in enumerate(subjects.chosen)]
    yield from _measure(bench, work, options, jobs, None, folder, "choose")


def measure_report(
    bench: Bench,
    subjects: SubjectSet,
    options: ImportanceOptions,
    winners: Sequence[LensSetting],
    folder: StudyFolder,
    *,
    asked: Sequence[LensSetting] = (),
) -> Iterator[Progress]:
    """Measures the frozen settings, plain ones and the paper's, with all seeds, on the concepts to report on.

    Centred settings and a neutral base are decoded with one seed, as are controls. Without `extras` they and the
    paper's setting are not decoded at all, unless they were chosen.

    Args:
        bench: the models, opened.
        subjects: the pictures.
        options: what to measure.
        winners: settings that were chosen by decoded pictures.
        folder: where parts go.
        asked: settings that were chosen by embeddings; they are not decoded.
    """
    always, extras = (*PLAIN, *winners), (*CENTRED, NEUTRAL)
    if options.extras:
        always = (*always, PUBLISHED)
    unseen = {str(setting): Job(setting) for setting in (*asked, *extras, PUBLISHED)}
    once = {str(setting): Job(setting, options.seeds[:1]) for setting in extras if options.extras}
    jobs = unseen | once | {str(setting): Job(setting, options.seeds) for setting in always}
    work = [(subject, other_of(subjects.reported, place)) for place, subject in enumerate(subjects.reported)]
    yield from _measure(bench, work, options, jobs, options.seeds[0], folder, "report")


def other_of(subjects: Sequence[Subject], place: int) -> Subject:
    """The picture that resampling takes a head's write from: the next one of another concept.

    Raises:
        UsageError: if all pictures are of one concept.
    """
    own = subjects[place]
    for step in range(1, len(subjects)):
        other = subjects[(place + step) % len(subjects)]
        if other.concept != own.concept:
            return other
    raise UsageError("resampling needs pictures of at least two concepts.")


def _measure(
    bench: Bench,
    work: Sequence[tuple[Subject, Subject]],
    options: ImportanceOptions,
    named: Mapping[str, Job],
    control_seed: int | None,
    folder: StudyFolder,
    stage: str,
) -> Iterator[Progress]:
    per_subject = len(bench.sites) * (sum(len(job.seeds) for job in named.values()) + (control_seed is not None))
    total = len(work) * per_subject
    done = sum(folder.has(part_name(stage, subject)) for subject, _ in work) * per_subject
    yield Progress(f"decoding to {stage}", done, total, "pictures")
    for subject, other in work:
        if folder.has(part_name(stage, subject)):
            continue
        tensors = subject_effects(bench, subject, other, options)
        trace = bench.encoder.trace(bench.encoder.preprocess([subject.image]))
        asked = {
            name: lens_embeddings(bench.encoder, trace, bench.sites, job.setting, bench.reference)[0]
            for name, job in named.items()
        }
        tensors |= {f"asked.{name}": embeddings.cpu() for name, embeddings in asked.items()}
        jobs = [(name, seed, asked[name]) for name, job in named.items() for seed in job.seeds]
        if control_seed is not None:
            jobs.append(("control", control_seed, _controls(bench, trace)))
        decoding = redecode_jobs(bench.pair, jobs, options.decode, bench.judge)
        tensors |= yield from part_of(decoding, f"decoding to {stage}", done, total)
        done += sum(len(rows) for _, _, rows in jobs)
        tensors |= judged_targets(bench.judge, subject)
        folder.add(part_name(stage, subject), tensors)


def _controls(bench: Bench, trace: Trace) -> Float[Tensor, "N E"]:
    """Random directions, each steered exactly as hard as its head is in the plain setting."""
    rhos = relative_strengths(bench.encoder, trace, bench.sites, PLAIN[0], bench.reference)
    directions = torch.stack([control_direction(site, 0, trace.final[0]) for site in bench.sites])
    return steer_directions(bench.encoder, trace, directions[None], rhos)[0].float()


def redecode_jobs(
    pair: Pair, jobs: Sequence[tuple[str, int, Float[Tensor, "N E"]]], options: DecodeOptions, judge: Encoder | None
) -> Generator[Progress, None, dict[str, Tensor]]:
    """Decodes named embeddings and embeds the pictures again; yields progress in pictures.

    Args:
        pair: encoder and decoder.
        jobs: name, seed and embeddings of each; they may differ in number.
        options: how to decode.
        judge: an outside encoder that sees the pictures as well.

    Returns:
        `made.NAME.seedS` and, with a judge, `judge.NAME.seedS` (N,E).
    """
    sizes = [len(rows) for _, _, rows in jobs]
    embeddings = torch.cat([rows for _, _, rows in jobs])
    seeds = [seed for _, seed, rows in jobs for _ in range(len(rows))]
    decoded = yield from redecode(pair.encoder, pair.decoder, embeddings, seeds, options, judge=judge)
    sides = {"made": decoded.embeddings} | ({} if decoded.judged is None else {"judge": decoded.judged})
    return {
        f"{side}.{name}.seed{seed}": part.clone()
        for side, rows in sides.items()
        for (name, seed, _), part in zip(jobs, rows.split(sizes), strict=True)
    }


def judged_targets(judge: Encoder | None, subject: Subject) -> dict[str, Tensor]:
    """How the outside judge, if there is one, sees the picture and the other one of its concept."""
    if judge is None:
        return {}
    seen = judge.embed(judge.preprocess(subject.images)).float().cpu()
    return {"judge.input": seen[0]} | ({"judge.other": seen[1]} if len(seen) > 1 else {})


def subject_effects(bench: Bench, subject: Subject, other: Subject, options: ImportanceOptions) -> dict[str, Tensor]:
    """Everything about one picture that needs no decoder: effects of ablation, and scores of the writes themselves.

    Returns:
        `clean` and the targets that there are, see `subject_targets` (E); `total.A` and `direct.A` (N,E) for each
        ablation A; `attribution.A.T` (N) for each target T; `norm`, `direct_cosine` (N).
    """
    encoder, sites = bench.encoder, bench.sites
    inputs = encoder.preprocess([subject.image])
    prefix, others = record_prefix(encoder, inputs), record_prefix(encoder, encoder.preprocess([other.image]))
    found: dict[str, Tensor] = {"clean": prefix.embedding[0].float()}
    targets = subject_targets(bench.pair, subject, options.given)
    found |= targets
    for ablation in options.ablations:
        ablated = _ablated(bench, prefix, others, ablation, options.batch)
        found[f"total.{ablation}"] = ablated.total[0].float()
        found[f"direct.{ablation}"] = ablated.direct[0].float()
        for name, target in targets.items():
            found[f"attribution.{ablation}.{name}"] = attribution(
                encoder,
                inputs,
                prefix,
                sites,
                similarity_with(target[None]),
                ablation,
                means=bench.means,
                others=others,
            )[0]
    trace = encoder.trace(inputs)
    writes, final = trace.stack(sites).float(), trace.final.float()[:, None]
    centred = encoder.spec.centred
    found["norm"] = visible_norm(writes, centred=centred)[0]
    if centred:
        writes, final = (side - side.mean(dim=-1, keepdim=True) for side in (writes, final))
    found["direct_cosine"] = cosine_similarity(writes.flatten(2), final.flatten(2))[0]
    return {name: tensor.detach().cpu() for name, tensor in found.items()}


def _ablated(bench: Bench, prefix: Prefix, others: Prefix, ablation: Ablation, batch: int) -> Ablated:
    events = ablate(bench.encoder, prefix, bench.sites, ablation, means=bench.means, others=others, batch=batch)
    return run_to_end(events)


def subject_targets(pair: Pair, subject: Subject, given: str = "") -> dict[str, Float[Tensor, "E"]]:
    """What signed effects are taken towards: the label's text, another picture of the same concept, a given text.

    Never the clean embedding itself: the signed effect would be the unsigned one again. A label that the pair knows no
    direction of is left out.

    Raises:
        UsageError: if there is none, or the pair does not know the given text.
    """
    targets: dict[str, Tensor] = {}
    if given:
        targets[GIVEN] = pair.text_direction(given).float()
    if (direction := label_direction(pair, subject.concept)) is not None:
        targets[TEXT] = direction
    if subject.other is not None:
        targets[OTHER] = pair.encoder.embed(pair.encoder.preprocess([subject.other]))[0].float()
    if not targets:
        raise UsageError(
            f"{subject.id}: the model knows no text {subject.concept!r}, and there is no other picture of the same "
            "concept, so there is no target for a signed effect."
        )
    return targets


def label_direction(pair: Pair, label: str) -> Float[Tensor, "E"] | None:
    """The direction of a label, or None if the pair reads no texts or does not know this one."""
    if pair.vocabulary is None and pair.texts is None:
        return None
    try:
        return pair.text_direction(label).float()
    except UsageError:
        return None


def with_steps(options: DecodeOptions, steps: int | None, guidance: float | None) -> DecodeOptions:
    """Decoding options with the user's in place of the decoder's own."""
    given = {name: value for name, value in (("steps", steps), ("guidance", guidance)) if value is not None}
    return replace(options, **given)
