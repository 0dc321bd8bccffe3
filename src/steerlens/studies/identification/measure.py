"""Measurements of the identification study: heads steered with their own writes, and with those for other pictures.

    own     P(LN(r_i + c h_n(i)))
    foil    P(LN(r_i + c' h_n(j)))    j another picture; c' such that the relative strength rho is that of the own
    random  P(LN(r_i + c'' v_n))      v_n isotropic, as strong again

for picture i with final residual r_i, and head n with write h_n. A neutral base replaces r_i by the mean over reference
pictures, and the Diffusion Lens decodes P(LN(h_n(i))): both see nothing of the input but the write.

References: R. Takatsuki et al., arXiv 2504.13763.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from steerlens.decoders import shown_pictures
from steerlens.encoders import Encoder
from steerlens.lenses import DiffusionLens, SteeringLens, control_direction, read_out, steer_directions
from steerlens.progress import Progress, part_of
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.studies.identification.options import IdentificationOptions, foils_of
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.measure import REPORT, DecodeJob, decode_jobs, judged_targets, part_name
from steerlens.studies.shared.parts import Part, TensorName, TensorNames, no_tensors
from steerlens.studies.shared.settings import LensSetting, Reference, lens_embeddings, reference_of
from steerlens.studies.shared.subjects import Subject, SubjectSet
from steerlens.studies.shared.targets import INPUT, OTHER
from steerlens.studies.shared.undecoded import is_undecoded
from steerlens.trace import Trace
from steerlens.zoo import Pair

OWN, FOIL, RANDOM, NEUTRAL, DIFFUSION = "own", "foil", "random", "neutral", "diffusion"
"""Embeddings of a picture: its own write, that of another picture, a random direction; from a neutral base; alone."""

RANDOM_PART, PICTURES = "random", "pictures"
"""Names of the part with random directions under the Diffusion Lens, and of that with the figure's pictures."""

SHOWN = 6
"""Number of rows of that figure."""

_REFERENCE_BATCH = 32


@dataclass(frozen=True, eq=False)
class IdentificationPart(Part):
    """Measurements of one picture; n studied heads, P pictures.

    Attributes:
        clean: embedding of the picture.
        other: embedding of another picture of the same concept, if there is one.
        requested: embeddings requested from the decoder, by kind: `own`, `foil0`, `random`, `neutral`, `diffusion`.
        decoded: decoded pictures embedded again, by kind and seed.
        judged: the same pictures embedded by the outside judge.
        judged_targets: embeddings by the judge of the picture (`input`) and of another of its concept (`other`).
        similarities: cosines of embeddings steered with the write for each of the P pictures, from this picture's
            base, with the picture (`input`) and with another of its concept (`other`).
    """

    WHAT: ClassVar[str] = "measurements of identification"

    clean: Annotated[Float[Tensor, " E"], TensorName("clean")]
    other: Annotated[Float[Tensor, " E"] | None, TensorName("other", optional=True)] = None
    requested: Annotated[Mapping[str, Float[Tensor, "n E"]], TensorNames("requested.{}", str)] = field(
        default_factory=no_tensors
    )
    decoded: Annotated[Mapping[tuple[str, int], Float[Tensor, "n E"]], TensorNames("decoded.{}.seed{}", str, int)] = (
        field(default_factory=dict[tuple[str, int], Tensor])
    )
    judged: Annotated[Mapping[tuple[str, int], Float[Tensor, "n F"]], TensorNames("judge.{}.seed{}", str, int)] = field(
        default_factory=dict[tuple[str, int], Tensor]
    )
    judged_targets: Annotated[Mapping[str, Float[Tensor, " F"]], TensorNames("judge.{}", (INPUT, OTHER))] = field(
        default_factory=no_tensors
    )
    similarities: Annotated[Mapping[str, Float[Tensor, "P n"]], TensorNames("similarity.{}", (INPUT, OTHER))] = field(
        default_factory=no_tensors
    )


@dataclass(frozen=True, eq=False)
class RandomPart(Part):
    """Random directions under the Diffusion Lens, the same for every picture.

    Attributes:
        requested: embeddings requested from the decoder.
        decoded: decoded pictures embedded again, by seed.
        judged: the same pictures embedded by the outside judge.
    """

    WHAT: ClassVar[str] = "random directions of the identification study"

    requested: Annotated[Float[Tensor, "n E"], TensorName("requested")]
    decoded: Annotated[Mapping[int, Float[Tensor, "n E"]], TensorNames("decoded.seed{}", int)] = field(
        default_factory=dict[int, Tensor]
    )
    judged: Annotated[Mapping[int, Float[Tensor, "n F"]], TensorNames("judge.seed{}", int)] = field(
        default_factory=dict[int, Tensor]
    )


@dataclass(frozen=True, eq=False)
class PicturesPart(Part):
    """Pictures of a few heads, each of another input, for a figure.

    Attributes:
        shown: decoded with the own write, the foil and the random direction.
    """

    WHAT: ClassVar[str] = "pictures of the identification study"

    shown: Annotated[UInt8[Tensor, "rows 3 height width 3"], TensorName("shown")]


@dataclass(frozen=True, eq=False)
class Traced:
    """Traces of all pictures of a study, with the writes of the studied heads.

    Attributes:
        encoder: the encoder.
        sites: the n studied heads.
        traces: trace of each of the P pictures.
        writes: writes of each picture's heads, float32.
    """

    encoder: Encoder
    sites: tuple[Site, ...]
    traces: Sequence[Trace]
    writes: Sequence[Float[Tensor, "n R D"]]

    def steered(self, place: int, directions: Float[Tensor, "n R D"], rho: Float[Tensor, " n"]) -> Float[Tensor, "n E"]:
        """Embeddings of a picture's final residual, steered along any directions."""
        embeddings = steer_directions(self.encoder, self.traces[place], directions[None], rho[None])
        return embeddings[0].float().cpu()

    def random(self, place: int) -> Float[Tensor, "n R D"]:
        """Isotropic directions of the heads, the same for every picture."""
        return torch.stack([control_direction(site, 0, self.traces[place].final[0]) for site in self.sites])


@torch.no_grad()
def trace_all(encoder: Encoder, subjects: Sequence[Subject], sites: tuple[Site, ...]) -> Traced:
    """Traces every picture, and multiplies out the writes of the studied heads."""
    traces = [encoder.trace(encoder.preprocess([subject.image])) for subject in subjects]
    return Traced(encoder, sites, traces, [trace.stack(sites)[0].float() for trace in traces])


def measure(
    pair: Pair, subjects: SubjectSet, options: IdentificationOptions, judge: Encoder | None, folder: StudyFolder
) -> Iterator[Progress]:
    """Measures every reported picture, and random directions under the Diffusion Lens.

    Without a decoder, nothing is decoded.

    Raises:
        UsageError: if there are too few pictures of other concepts.
        StoreError: if a part cannot be written or read; finished parts stay.
    """
    everyone, sites = subjects.reported, options.sites(pair.encoder.spec)
    foils = foils_of(everyone, options.n_foils)
    names = [part_name(REPORT, subject) for subject in everyone]
    decodes = not is_undecoded(pair)
    kinds = (4 + options.n_foils) * decodes
    per_subject = kinds * len(sites) * len(options.seeds)
    alone = len(sites) * len(options.seeds) * decodes
    total = per_subject * len(names) + alone
    done = per_subject * sum(map(folder.has, names)) + alone * folder.has(RANDOM_PART)
    yield Progress("decoding", done, total, "pictures")
    if all(map(folder.has, (*names, RANDOM_PART, *([PICTURES] if decodes else [])))):
        return
    reference = mean_residual(pair.encoder, subjects, sites)
    traced = trace_all(pair.encoder, everyone, sites)
    for place, name in enumerate(names):
        if folder.has(name):
            continue
        part = undecoded(traced, place, everyone[place], foils[place], options, reference)
        if not decodes:
            folder.keep(name, part)
            continue
        jobs = [DecodeJob(kind, seed, rows) for kind, rows in part.requested.items() for seed in options.seeds]
        decoded = yield from part_of(decode_jobs(pair, jobs, options.decode, judge), "decoding", done, total)
        done += per_subject
        targets = judged_targets(judge, everyone[place])
        folder.keep(
            name,
            IdentificationPart(
                part.clean, part.other, part.requested, decoded.decoded, decoded.judged, targets, part.similarities
            ),
        )
    if not folder.has(RANDOM_PART):
        with torch.no_grad():
            rows = read_out(pair.encoder, traced.random(0)[None])[0].float().cpu()
        jobs = [DecodeJob(RANDOM, seed, rows) for seed in options.seeds if decodes]
        if not jobs:
            folder.keep(RANDOM_PART, RandomPart(rows))
            return
        decoded = yield from part_of(decode_jobs(pair, jobs, options.decode, judge), "decoding", done, total)
        by_seed = [{seed: own for (_, seed), own in views.items()} for views in (decoded.decoded, decoded.judged)]
        folder.keep(RANDOM_PART, RandomPart(rows, *by_seed))
    if not folder.has(PICTURES):
        folder.keep(PICTURES, _pictures(pair, traced, foils, options))


def mean_residual(encoder: Encoder, subjects: SubjectSet, sites: Sequence[Site]) -> Reference:
    """Means over the reference pictures, from which a neutral base is taken."""
    images = subjects.reference
    starts = range(0, len(images), _REFERENCE_BATCH)
    batches = (encoder.preprocess(images[start : start + _REFERENCE_BATCH]) for start in starts)
    return reference_of(encoder, [encoder.trace(batch) for batch in batches], sites)


@torch.no_grad()
def undecoded(
    traced: Traced,
    place: int,
    subject: Subject,
    foils: Sequence[int],
    options: IdentificationOptions,
    reference: Reference,
) -> IdentificationPart:
    """Measures everything of a picture that needs no decoder.

    Args:
        traced: traces of all pictures.
        place: index of the picture.
        subject: the picture.
        foils: indices of the pictures whose writes are decoded.
        options: options of the study.
        reference: means over reference pictures.
    """
    encoder, sites, trace = traced.encoder, traced.sites, traced.traces[place]
    rho = SteeringLens(encoder, options.strength).relative_strength(trace, sites)[0]
    by_picture = torch.stack([traced.steered(place, writes, rho) for writes in traced.writes])
    neutral = LensSetting("steering", options.strength, base="neutral")
    clean = trace.embedding[0].float().cpu()
    targets = {INPUT: clean}
    if subject.other is not None:
        targets[OTHER] = encoder.embed(encoder.preprocess([subject.other]))[0].float().cpu()
    requested = {OWN: by_picture[place].clone()}
    requested |= {f"{FOIL}{number}": by_picture[foil].clone() for number, foil in enumerate(foils)}
    requested[RANDOM] = traced.steered(place, traced.random(place), rho)
    requested[NEUTRAL] = lens_embeddings(encoder, trace, sites, neutral, reference)[0].float().cpu()
    requested[DIFFUSION] = DiffusionLens(encoder).embeddings(trace, sites)[0].float().cpu()
    return IdentificationPart(
        clean,
        targets.get(OTHER),
        requested,
        similarities={name: cosine_similarity(by_picture, target) for name, target in targets.items()},
    )


def shown_rows(n_pictures: int, n_heads: int) -> list[tuple[int, int]]:
    """Picture and head of each row of the figure: the first pictures, with heads evenly spaced over the depth."""
    rows = min(SHOWN, n_pictures)
    heads = torch.linspace(0, n_heads - 1, rows + 2)[1:-1].round().int().tolist()
    return list(zip(range(rows), heads, strict=True))


def _pictures(
    pair: Pair, traced: Traced, foils: Sequence[Sequence[int]], options: IdentificationOptions
) -> PicturesPart:
    embeddings: list[Tensor] = []
    for place, head in shown_rows(len(traced.traces), len(traced.sites)):
        rho = SteeringLens(pair.encoder, options.strength).relative_strength(traced.traces[place], traced.sites)[0]
        sources = (traced.writes[place], traced.writes[foils[place][0]], traced.random(place))
        embeddings += [traced.steered(place, directions, rho)[head] for directions in sources]
    seeds = [options.seeds[0]] * len(embeddings)
    shown = shown_pictures(pair.decoder, torch.stack(embeddings), seeds, options.decode)
    return PicturesPart(shown.unflatten(0, (-1, 3)))
