"""Study 2, overlay removal: ablate heads in the order in which a lens sees the overlay, and watch it leave.

For every pair of a base and an overlay: orders of heads, and the trajectory of the embedding as more and more of them
are ablated together on real forward passes. This file measures: it stores embeddings, and what orders heads;
`removal_summary.py` makes every figure from the stored parts.

References: R. Takatsuki et al., arXiv 2504.13763, study 2.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steerlens.decoders.base import DecodeOptions
from steerlens.decoders.redecoding import redecode
from steerlens.encoders.base import Encoder
from steerlens.encoders.prefix import record_from, record_prefix
from steerlens.errors import UsageError
from steerlens.images import eight_bit
from steerlens.progress import Progress, part_of, run_to_end
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.studies.importance.measure import Bench
from steerlens.studies.overlay.pictures import Overlaid
from steerlens.studies.shared.candidates import PLAIN, PUBLISHED, diffusion_candidates, steering_candidates
from steerlens.studies.shared.effects import Ablation, Objective, attribution, by_layer, replacements
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.joint import Scene, direct_effect, greedy, objective, one_shot, points
from steerlens.studies.shared.scores import PUBLISHED_NAME
from steerlens.studies.shared.settings import LensSetting, lens_embeddings
from steerlens.zoo.pair import Pair

_JUDGE_BATCH = 32

Seen = Literal["made", "asked", "judged"]
"""Which embeddings of a lens are compared with the overlay; see `lens_score`."""

OBJECTIVE = "objective"
"""To compare pictures by the very objective that orders are evaluated by."""


@dataclass(frozen=True)
class RemovalOptions:
    """What the study measures.

    Attributes:
        decode: how to decode.
        seed: first seed of the decoder, the same for all heads, and of the random orders.
        seeds: seeds of the decoder over which scores are averaged on the pairs to report on; on those to choose on, and
            for pictures along the way, it is one.
        ablation: what replaces a head's write; `resample` takes it from the base without the overlay.
        steering: settings that the Steering Lens may choose from.
        diffusion: settings that the Diffusion Lens may choose from; as many.
        batch: rows of a forward pass.
        greedy_pool: heads, best by their single effects, that greedy re-evaluation tries at each step.
        strips: reported pairs whose pictures along the way are kept.
    """

    decode: DecodeOptions
    seed: int = 0
    ablation: Ablation = "resample"
    steering: tuple[LensSetting, ...] = field(default_factory=steering_candidates)
    diffusion: tuple[LensSetting, ...] = field(default_factory=diffusion_candidates)
    batch: int = 64
    greedy_pool: int = 128
    strips: int = 6
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UsageError("the decoder needs at least 1 seed.")
        if len(self.steering) != len(self.diffusion):
            raise UsageError("both lenses get the same number of settings to choose from.")


def open_scene(bench: Bench, pair: Overlaid, options: RemovalOptions) -> Scene:
    """Runs the clean passes of a pair and gathers what replaces its heads' writes."""
    encoder = bench.encoder
    prefix = record_prefix(encoder, encoder.preprocess([pair.both]))
    base = record_prefix(encoder, encoder.preprocess([pair.base]))
    put: dict[Site, Tensor] = {}
    for group in by_layer(bench.sites):
        own = record_from(encoder, prefix, group)
        put |= replacements(encoder, group, options.ablation, bench.means, base, own)
    overlay = encoder.embed(encoder.preprocess([pair.overlay]))[0].float()
    mean = bench.reference.embeddings.mean(dim=0)
    return Scene(encoder, bench.sites, prefix, put, base.embedding[0].float(), overlay, mean, options.batch)


def first_order(bench: Bench, pair: Overlaid, scene: Scene, options: RemovalOptions) -> Float[Tensor, "N"]:
    """Attribution patching on the objective."""
    encoder = bench.encoder
    inputs = encoder.preprocess([pair.both])
    others = record_prefix(encoder, encoder.preprocess([pair.base]))
    score: Objective = scene.objective
    found = attribution(
        encoder, inputs, scene.prefix, bench.sites, score, options.ablation, means=bench.means, others=others
    )
    return found[0]


def part_name(stage: str, pair: Overlaid) -> str:
    """The name of a pair's part."""
    return f"{stage}-{pair.id}"


def measure(
    bench: Bench,
    pairs: Sequence[Overlaid],
    settings: Mapping[str, LensSetting],
    options: RemovalOptions,
    folder: StudyFolder,
    stage: str,
    *,
    undecoded: Mapping[str, LensSetting] | None = None,
    seeds: int = 1,
    judge_mean: Float[Tensor, " F"] | None = None,
) -> Iterator[Progress]:
    """Measures pairs: what every setting asks the decoder for, its pictures embedded again, and effects of ablation.

    Args:
        bench: the models, opened.
        pairs: the pairs.
        settings: by the name that their results get.
        undecoded: more of them, of which no pictures are made.
        options: how.
        folder: where parts go.
        stage: their name.
        seeds: seeds of the decoder.
        judge_mean: mean embedding of the reference pictures as the judge sees them; without it, the judge sees nothing.

    Raises:
        StoreError: if a part cannot be written or read; finished parts stay.
    """
    per_pair = len(bench.sites) * len(settings) * seeds
    total, done = per_pair * len(pairs), per_pair * sum(folder.has(part_name(stage, pair)) for pair in pairs)
    yield Progress(f"decoding to {stage}", done, total, "pictures")
    for pair in pairs:
        if folder.has(part_name(stage, pair)):
            continue
        scene = open_scene(bench, pair, options)
        tensors = {
            "both": scene.prefix.embedding[0].float(),
            "base": scene.base,
            "overlay": scene.overlay,
            "mean": scene.mean,
        }
        if bench.judge is not None and judge_mean is not None:
            seen = bench.judge.embed(bench.judge.preprocess([pair.base, pair.overlay])).float()
            tensors |= {"judge.base": seen[0], "judge.overlay": seen[1], "judge.mean": judge_mean}
        text = overlay_text(bench.pair, pair)
        tensors |= {} if text is None else {"text": text}
        trace = bench.encoder.trace(bench.encoder.preprocess([pair.both]))
        asked = {
            name: lens_embeddings(bench.encoder, trace, bench.sites, setting, bench.reference)[0]
            for name, setting in {**settings, **(undecoded or {})}.items()
        }
        tensors |= {f"asked.{name}": rows for name, rows in asked.items()}
        judge = None if judge_mean is None else bench.judge
        decoding = _decode(bench, {name: asked[name] for name in settings}, options, seeds, judge)
        tensors |= yield from part_of(decoding, f"decoding to {stage}", done, total)
        done += per_pair
        single = one_shot(scene)
        tensors["one_shot"] = single
        tensors["greedy"] = torch.tensor(greedy(scene, single, pool=options.greedy_pool))
        tensors["attribution"] = first_order(bench, pair, scene, options)
        tensors["direct"] = direct_effect(scene)
        folder.add(part_name(stage, pair), tensors)


def _decode(
    bench: Bench,
    asked: Mapping[str, Float[Tensor, "N E"]],
    options: RemovalOptions,
    seeds: int,
    judge: Encoder | None,
) -> Generator[Progress, None, dict[str, Float[Tensor, "seeds N E"]]]:
    """The pictures of every setting with every seed, embedded again; the judge's embeddings as well."""
    stacked = torch.stack(list(asked.values()))[:, None].expand(-1, seeds, -1, -1)
    shape = stacked.shape[:3]
    numbers = torch.arange(options.seed, options.seed + seeds)[:, None].expand(shape).flatten().tolist()
    events = redecode(bench.encoder, bench.pair.decoder, stacked.flatten(0, 2), numbers, options.decode, judge=judge)
    decoded = yield from events
    sides = {"made": decoded.embeddings} | ({} if decoded.judged is None else {"judged": decoded.judged})
    return {
        f"{seen}.{name}": rows.clone()
        for seen, embeddings in sides.items()
        for name, rows in zip(asked, embeddings.unflatten(0, shape), strict=True)
    }


def overlay_text(pair: Pair, overlaid: Overlaid) -> Float[Tensor, "E"] | None:
    """The direction of the overlay's name, or None if the pair knows no texts, or not this one."""
    try:
        return pair.text_direction(overlaid.overlay_concept).float()
    except UsageError:
        return None


def lens_score(part: Mapping[str, Tensor], name: str, compare: str, seen: Seen = "made") -> Float[Tensor, "N"]:
    """How much of the overlay is in a lens' pictures, or in what it asked for; mean of seeds.

    Args:
        part: of one pair.
        name: of the setting.
        compare: `overlay`, similarity with its picture; `objective`, what the study evaluates by, with the overlay less
            with the base; `text`, similarity with the overlay's name.
        seen: what is compared: `made`, the decoded pictures; `asked`, the embeddings before decoding; `judged`, the
            decoded pictures as the outside judge sees them, by its own embeddings of base, overlay and references.
    """
    scores = seed_scores(part, name, compare, seen)
    return scores if seen == "asked" else scores.mean(dim=0)


def seed_scores(
    part: Mapping[str, Tensor], name: str, compare: str, seen: Seen = "made"
) -> Float[Tensor, "N"] | Float[Tensor, "seeds N"]:
    """The same seed by seed, where there are seeds."""
    embeddings, side = part[f"{seen}.{name}"], "judge." if seen == "judged" else ""
    if compare == OBJECTIVE:
        return objective(embeddings, part[f"{side}base"], part[f"{side}overlay"], part[f"{side}mean"])
    return cosine_similarity(embeddings, part[f"{side}{compare}"])


def judged_compare(compare: str) -> str:
    """What the judge compares pictures with: it reads no names of overlays, and goes by the objective instead."""
    return OBJECTIVE if compare == "text" else compare


def mean_seen(judge: Encoder, images: Sequence[Image.Image]) -> Float[Tensor, " F"]:
    """The mean embedding of reference pictures as the judge sees them."""
    starts = range(0, len(images), _JUDGE_BATCH)
    batches = [judge.embed(judge.preprocess(images[start : start + _JUDGE_BATCH])) for start in starts]
    return torch.cat([batch.float().cpu() for batch in batches]).mean(dim=0)


def measure_orders(
    bench: Bench,
    pairs: Sequence[Overlaid],
    orders: Sequence[Mapping[str, Sequence[int]]],
    options: RemovalOptions,
    folder: StudyFolder,
    stage: str,
    strips: Sequence[str] = (),
) -> Iterator[Progress]:
    """Measures trajectories: of the embedding for all orders, of decoded pictures for some.

    Args:
        bench: the encoder, opened.
        pairs: the pairs.
        orders: of each pair, heads by the order's name.
        options: how.
        folder: where parts go.
        stage: their name.
        strips: orders along which pictures are decoded.

    Raises:
        StoreError: if a part cannot be written or read; finished parts stay.
    """
    counts = points(len(bench.sites))
    yield Progress(f"ablating to {stage}", 0, len(pairs), "pictures")
    for number, (pair, named) in enumerate(zip(pairs, orders, strict=True), start=1):
        if not folder.has(part_name(stage, pair)):
            scene = open_scene(bench, pair, options)
            sets = [list(order[:count]) for order in named.values() for count in counts]
            embeddings = scene.ablated(sets).unflatten(0, (len(named), len(counts)))
            tensors = {f"way.{name}": rows.clone() for name, rows in zip(named, embeddings, strict=True)}
            if strips:
                tensors |= _strips(
                    bench, tensors, strips, strip_columns(counts), options, keep=number <= options.strips
                )
            folder.add(part_name(stage, pair), tensors)
        yield Progress(f"ablating to {stage}", number, len(pairs), "pictures")


def strip_columns(counts: Sequence[int]) -> list[int]:
    """Places among the measured points whose pictures are decoded: none ablated, up to the quarter, and all."""
    quarter = max(1, counts[-1] // 4)
    wanted = [round(quarter * share) for share in (0, 0.15, 0.35, 0.65, 1)] + [counts[-1]]
    return [min(range(len(counts)), key=lambda place: abs(counts[place] - want)) for want in wanted]


def _strips(
    bench: Bench,
    ways: Mapping[str, Tensor],
    strips: Sequence[str],
    columns: Sequence[int],
    options: RemovalOptions,
    *,
    keep: bool,
) -> dict[str, Tensor]:
    rows = torch.stack([ways[f"way.{name}"][list(columns)] for name in strips])
    # All orders begin with no head ablated and end with all: each picture is decoded once.
    distinct, places = rows.flatten(0, 1).unique(dim=0, return_inverse=True)
    places, found = places.cpu(), dict[str, Tensor]()
    seeds = [options.seed] * len(distinct)
    decoded = run_to_end(redecode(bench.encoder, bench.pair.decoder, distinct, seeds, options.decode, keep=keep))
    remade = {"remade": decoded.embeddings}
    if decoded.pictures is not None:
        remade["strip"] = torch.from_numpy(eight_bit(decoded.pictures)).permute(0, 3, 1, 2)
    for kind, values in remade.items():
        each = values[places].unflatten(0, rows.shape[:2])
        found |= {f"{kind}.{name}": part.clone() for name, part in zip(strips, each, strict=True)}
    return found


def setting_names(settings: Sequence[LensSetting]) -> dict[str, LensSetting]:
    """Settings by name, each once."""
    return {str(setting): setting for setting in dict.fromkeys(settings)}


def plain_settings() -> dict[str, LensSetting]:
    """The settings that nothing was tuned for, by the name of their order: the plain ones, and the paper's."""
    return {f"{setting.lens}, plain": setting for setting in PLAIN} | {PUBLISHED_NAME: PUBLISHED}


def compares(pair: Pair, overlaid: Sequence[Overlaid]) -> tuple[str, ...]:
    """What pictures can be compared with: the overlay's picture, with or without the base's, and its name if known."""
    known = all(overlay_text(pair, one) is not None for one in overlaid)
    return ("overlay", OBJECTIVE, "text") if known else ("overlay", OBJECTIVE)
