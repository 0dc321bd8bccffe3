"""Measurements of the overlay study: ablating heads in a lens' order should remove an overlay from the embedding.

For every pair of a base and an overlay: embeddings and effects that order heads, and the trajectory of the embedding as
more and more heads are ablated together on real forward passes. This file stores embeddings and derives nothing from
them; `summary.py` computes every figure from the parts.

References: R. Takatsuki et al., arXiv 2504.13763, study 2.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steerlens.decoders import redecode
from steerlens.encoders import Encoder, record_prefix
from steerlens.images import eight_bit
from steerlens.lenses import visible_norm, writes
from steerlens.progress import Progress, part_of, run_to_end
from steerlens.sites import Site
from steerlens.studies.overlay.joint import Scene, direct_effect, greedy, one_shot, points
from steerlens.studies.overlay.options import OverlayOptions
from steerlens.studies.overlay.parts import OverlayPart, TrajectoryPart
from steerlens.studies.overlay.pictures import Overlaid
from steerlens.studies.overlay.scores import overlay_text
from steerlens.studies.shared.ablation import Objective, attribution, replacements
from steerlens.studies.shared.bench import Bench
from steerlens.studies.shared.components import Components
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.measure import REPORT, part_name
from steerlens.studies.shared.remainder import complete_parts
from steerlens.studies.shared.settings import LensSetting, lens_embeddings

SELECTION_TRAJECTORIES, REPORT_TRAJECTORIES = "choose-ways", "report-ways"
"""Stages of the study in the names of trajectory parts."""

_JUDGE_BATCH = 32


def open_scene(bench: Bench, pair: Overlaid, options: OverlayOptions) -> Scene:
    """Runs the clean passes of a pair and collects the replacements of its heads' writes."""
    encoder = bench.encoder
    prefix = record_prefix(encoder, encoder.preprocess([pair.both]))
    base = record_prefix(encoder, encoder.preprocess([pair.base]))
    put: dict[Site, Tensor] = {}
    components = Components((*bench.sites, *bench.remainders), bench.sae)
    for group in components.by_layer():
        own = components.record(encoder, prefix, group)
        put |= replacements(encoder, group, options.ablation, bench.means, base, own, bench.sae)
    overlay = encoder.embed(encoder.preprocess([pair.overlay]))[0].float()
    mean = bench.reference.embeddings.mean(dim=0)
    clean = base.embedding[0].float()
    return Scene(encoder, bench.sites, prefix, put, clean, overlay, mean, options.batch, bench.sae)


def first_order(bench: Bench, pair: Overlaid, scene: Scene, options: OverlayOptions) -> Float[Tensor, "N"]:
    """Computes attribution patching on the objective."""
    encoder = bench.encoder
    inputs = encoder.preprocess([pair.both])
    others = record_prefix(encoder, encoder.preprocess([pair.base]))
    score: Objective = scene.objective
    return attribution(
        encoder,
        inputs,
        scene.prefix,
        bench.sites,
        score,
        options.ablation,
        means=bench.means,
        others=others,
        sae=bench.sae,
    )[0]


@dataclass(frozen=True, eq=False)
class OverlayMeasurements:
    """Settings and seeds that are measured in a stage.

    Attributes:
        decoded: settings whose pictures are decoded, by the name of their results.
        undecoded: further settings, whose embeddings alone are stored.
        seeds: number of seeds of the decoder.
        judge_mean: mean embedding of the reference pictures by the judge; None to measure without the judge.
    """

    decoded: Mapping[str, LensSetting]
    undecoded: Mapping[str, LensSetting]
    seeds: int = 1
    judge_mean: Float[Tensor, " F"] | None = None


def measure(
    bench: Bench,
    pairs: Sequence[Overlaid],
    wanted: OverlayMeasurements,
    options: OverlayOptions,
    folder: StudyFolder,
    stage: str,
) -> Iterator[Progress]:
    """Measures pairs: requested embeddings of every setting, pictures embedded again, and effects of ablation.

    Args:
        bench: the models.
        pairs: the pairs.
        wanted: settings and seeds.
        options: options of the study.
        folder: the study's folder.
        stage: stage, for the names of parts.

    Raises:
        StoreError: if a part cannot be written or read; finished parts stay.
    """
    decodes = bool(wanted.decoded)
    per_pair = len(bench.sites) * len(wanted.decoded) * wanted.seeds if decodes else 1
    what = f"{'decoding' if decodes else 'measuring'} to {stage}"
    total, done = per_pair * len(pairs), per_pair * sum(folder.has(part_name(stage, pair)) for pair in pairs)
    yield Progress(what, done, total, "pictures" if decodes else "pairs")
    for pair in pairs:
        if folder.has(part_name(stage, pair)):
            continue
        scene = open_scene(bench, pair, options)
        requested = _requested(bench, pair, {**wanted.decoded, **wanted.undecoded})
        judge = None if wanted.judge_mean is None else bench.judge
        to_decode = {name: requested[name] for name in wanted.decoded}
        decoded = _Decoded({}, {})
        if decodes:
            decoding = _decode(bench, to_decode, options, wanted.seeds, judge)
            decoded = yield from part_of(decoding, what, done, total)
        done += per_pair
        part = replace(
            _effects(bench, pair, scene, options),
            requested=requested,
            decoded=decoded.own,
            judged=decoded.judged,
        )
        folder.keep(part_name(stage, pair), _judged(part, bench.judge, pair, wanted.judge_mean))
        if not decodes:
            yield Progress(what, done, total, "pairs")


def measure_remainders(
    bench: Bench, pairs: Sequence[Overlaid], options: OverlayOptions, folder: StudyFolder
) -> Iterator[Progress]:
    """Measures the error and the bias of the autoencoder for reported pairs whose parts lack them.

    Args:
        bench: models of the study; nothing is measured without an autoencoder.
        pairs: the reported pairs.
        options: options of the study.
        folder: folder of the study, which holds the parts.

    Raises:
        StoreError: if a part cannot be read or written.
        ModelError: if the encoder fails.
    """

    def completed(place: int, part: OverlayPart) -> OverlayPart:
        return replace(part, remainder=_remainder(bench, open_scene(bench, pairs[place], options)))

    if bench.remainders:
        names = [part_name(REPORT, pair) for pair in pairs]
        yield from complete_parts(folder, OverlayPart, names, lambda part: part.remainder is None, completed, "pairs")


def _requested(bench: Bench, pair: Overlaid, settings: Mapping[str, LensSetting]) -> dict[str, Float[Tensor, "N E"]]:
    trace = bench.trace(pair.both)
    return {
        name: lens_embeddings(bench.encoder, trace, bench.sites, setting, bench.reference, bench.components.directions)[
            0
        ]
        for name, setting in settings.items()
    }


def _effects(bench: Bench, pair: Overlaid, scene: Scene, options: OverlayOptions) -> OverlayPart:
    """Measures everything that needs no decoder."""
    single = one_shot(scene)
    norm, change = write_norms(bench, pair)
    return OverlayPart(
        both=scene.prefix.embedding[0].float(),
        base=scene.base,
        overlay=scene.overlay,
        mean=scene.mean,
        text=overlay_text(bench.pair, pair),
        one_shot=single,
        greedy=torch.tensor(greedy(scene, single, pool=options.greedy_pool)),
        first_order=first_order(bench, pair, scene, options),
        direct=direct_effect(scene),
        norm=norm,
        change=change,
        remainder=_remainder(bench, scene),
    )


def _remainder(bench: Bench, scene: Scene) -> Float[Tensor, "2"] | None:
    """True drops of the objective when the autoencoder's error and bias are ablated alone; None for heads."""
    if not bench.remainders:
        return None
    return one_shot(replace(scene, sites=bench.remainders))


@torch.no_grad()
def write_norms(bench: Bench, pair: Overlaid) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"]]:
    """Visible norms of the heads' writes for the base with the overlay, and of their change from the base alone."""
    encoder = bench.encoder
    both, base = (
        writes(encoder, bench.trace(image), bench.sites, bench.components.directions).float()
        for image in (pair.both, pair.base)
    )
    norms = [visible_norm(written, centred=encoder.spec.centred)[0].cpu() for written in (both, both - base)]
    return norms[0], norms[1]


def _judged(part: OverlayPart, judge: Encoder | None, pair: Overlaid, mean: Float[Tensor, " F"] | None) -> OverlayPart:
    """Adds the judge's embeddings of base, overlay and references to a part, if there is a judge."""
    if judge is None or mean is None:
        return part
    base, overlay = judge.embed(judge.preprocess([pair.base, pair.overlay])).float()
    return replace(part, judged_base=base.clone(), judged_overlay=overlay.clone(), judged_mean=mean)


@dataclass(frozen=True, eq=False)
class _Decoded:
    """Decoded pictures embedded again, by setting and seed."""

    own: Mapping[str, Float[Tensor, "S N E"]]
    judged: Mapping[str, Float[Tensor, "S N F"]]


def _decode(
    bench: Bench,
    requested: Mapping[str, Float[Tensor, "N E"]],
    options: OverlayOptions,
    seeds: int,
    judge: Encoder | None,
) -> Generator[Progress, None, _Decoded]:
    """Decodes every setting with every seed and embeds the pictures again, by the judge too."""
    stacked = torch.stack(list(requested.values()))[:, None].expand(-1, seeds, -1, -1)
    shape = stacked.shape[:3]
    numbers = torch.arange(options.seed, options.seed + seeds)[:, None].expand(shape).flatten().tolist()

    def by_setting(rows: Float[Tensor, "M E"] | None) -> dict[str, Tensor]:
        if rows is None:
            return {}
        return {name: own.clone() for name, own in zip(requested, rows.unflatten(0, shape), strict=True)}

    decoded = yield from redecode(
        bench.encoder, bench.pair.decoder, stacked.flatten(0, 2), numbers, options.decode, judge=judge
    )
    return _Decoded(by_setting(decoded.embeddings), by_setting(decoded.judged))


def judge_mean(judge: Encoder, images: Sequence[Image.Image]) -> Float[Tensor, " F"]:
    """Mean embedding of reference pictures by the judge."""
    starts = range(0, len(images), _JUDGE_BATCH)
    batches = [judge.embed(judge.preprocess(images[start : start + _JUDGE_BATCH])) for start in starts]
    return torch.cat([batch.float().cpu() for batch in batches]).mean(dim=0)


def measure_trajectories(
    bench: Bench,
    pairs: Sequence[Overlaid],
    orders: Sequence[Mapping[str, Sequence[int]]],
    options: OverlayOptions,
    folder: StudyFolder,
    stage: str,
    strips: Sequence[str] = (),
    retained: Sequence[str] = (),
) -> Iterator[Progress]:
    """Measures trajectories: of the embedding along all orders, of decoded pictures along some orders.

    Args:
        bench: the models.
        pairs: the pairs.
        orders: orders of heads by name, for each pair.
        options: options of the study.
        folder: the study's folder.
        stage: stage, for the names of parts.
        strips: orders along which pictures are decoded.
        retained: orders along which heads are also retained, with all other heads ablated.

    Raises:
        StoreError: if a part cannot be written or read; finished parts stay.
    """
    counts = points(len(bench.sites))
    yield Progress(f"ablating to {stage}", 0, len(pairs))
    for number, (pair, named) in enumerate(zip(pairs, orders, strict=True), start=1):
        if not folder.has(part_name(stage, pair)):
            scene = open_scene(bench, pair, options)
            sets = [list(order[:count]) for order in named.values() for count in counts]
            embeddings = scene.ablated(sets).unflatten(0, (len(named), len(counts)))
            part = TrajectoryPart({name: rows.clone() for name, rows in zip(named, embeddings, strict=True)})
            kept = [name for name in retained if name in named]
            if kept:
                part = replace(part, retained=retained_embeddings(scene, {name: named[name] for name in kept}, counts))
            if strips:
                part = _with_pictures(
                    bench, part, strips, strip_columns(counts), options, keep=number <= options.strips
                )
            folder.keep(part_name(stage, pair), part)
        yield Progress(f"ablating to {stage}", number, len(pairs))


def retained_embeddings(
    scene: Scene, orders: Mapping[str, Sequence[int]], counts: Sequence[int]
) -> dict[str, Float[Tensor, "K E"]]:
    """Embeddings with the first heads of an order at their own values and all others ablated."""
    N = len(scene.sites)
    sets = [[head for head in range(N) if head not in order[:count]] for order in orders.values() for count in counts]
    embeddings = scene.ablated(sets).unflatten(0, (len(orders), len(counts)))
    return {name: rows.clone() for name, rows in zip(orders, embeddings, strict=True)}


def strip_columns(counts: Sequence[int]) -> list[int]:
    """Indices of the measured points whose pictures are decoded: no heads, up to a quarter of them, and all."""
    quarter = max(1, counts[-1] // 4)
    wanted = [round(quarter * share) for share in (0, 0.15, 0.35, 0.65, 1)] + [counts[-1]]
    return [min(range(len(counts)), key=lambda place: abs(counts[place] - want)) for want in wanted]


def _with_pictures(
    bench: Bench,
    part: TrajectoryPart,
    strips: Sequence[str],
    columns: Sequence[int],
    options: OverlayOptions,
    *,
    keep: bool,
) -> TrajectoryPart:
    rows = torch.stack([part.embeddings[name][list(columns)] for name in strips])
    # All orders share the first and the last point, so each distinct picture is decoded once.
    distinct, places = rows.flatten(0, 1).unique(dim=0, return_inverse=True)
    places = places.cpu()

    def by_order(values: Tensor) -> dict[str, Tensor]:
        each = values[places].unflatten(0, rows.shape[:2])
        return {name: own.clone() for name, own in zip(strips, each, strict=True)}

    seeds = [options.seed] * len(distinct)
    events = redecode(bench.encoder, bench.pair.decoder, distinct, seeds, options.decode, keep=keep)
    decoded = run_to_end(events)
    part = replace(part, decoded=by_order(decoded.embeddings))
    if decoded.pictures is None:
        return part
    pictures = torch.from_numpy(eight_bit(decoded.pictures)).permute(0, 3, 1, 2)
    return replace(part, pictures=by_order(pictures))
