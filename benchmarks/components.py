"""Steering of components other than whole heads, compared with the effect of resampling them.

On scenes with an overlay, each component is steered with rho=1. Its score is how much more of the overlay than of the
base is in the embedding, and in the decoded picture. It is compared with the drop of the same objective when the
component is resampled from the base without the overlay, on a real forward pass:

- heads by their whole writes, by what they read from the overlay's place, and by what they read elsewhere;
- the attention of each layer as a group of its heads;
- MLPs.

Prints Spearman correlations over the components of a kind, mean over pairs, with intervals over pairs and components.

    python benchmarks/components.py --data DATA --count 24
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import steerlens
from steerlens.decoders.redecoding import redecode
from steerlens.encoders.prefix import record_from, record_prefix, resume
from steerlens.interventions import Resample
from steerlens.lenses.components import Group
from steerlens.lenses.regions import Box, token_part
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.strength import Strength
from steerlens.progress import run_to_end
from steerlens.scores import cosine_similarity
from steerlens.sites import Site
from steerlens.studies.overlay.joint import Scene, one_shot
from steerlens.studies.overlay.measure import open_scene
from steerlens.studies.overlay.options import OverlayOptions
from steerlens.studies.overlay.pictures import Overlaid
from steerlens.studies.overlay.scenes import scene_pairs
from steerlens.studies.shared import Bench, by_layer, correlation_estimate, difference_estimate, make_bench

WHOLE, INSIDE, OUTSIDE = "heads, all they write", "heads, read from the overlay's place", "heads, read elsewhere"
ATTENTION, MLPS = "attention of a layer", "MLPs"


def steered(bench: Bench, pair: Overlaid) -> dict[str, Tensor]:
    """Embeddings (N,E) of every component of a kind, steered with rho=1 from the picture's own residual."""
    encoder, spec = bench.encoder, bench.encoder.spec
    trace = encoder.trace(encoder.preprocess([pair.both]), attention=True)
    height, width = spec.image_size
    half, place = pair.placement.size * min(height, width) / 2, pair.placement
    box = Box(
        max(0, round(place.x * width - half)),
        max(0, round(place.y * height - half)),
        min(width, round(place.x * width + half)),
        min(height, round(place.y * height + half)),
    )
    inside = box.weights(spec)
    parts = {
        f"{kind}.{site.layer}.{site.head}": token_part(trace, site, weights)[0, 0]
        for kind, weights in (("in", inside), ("out", 1 - inside))
        for site in bench.sites
    }
    groups = {f"layer.{sites[0].layer}": Group(tuple(sites)) for sites in by_layer(bench.sites)}
    lens = SteeringLens(encoder, Strength("rho", 1.0), {**parts, **groups})

    def of(sites: Sequence[Site]) -> Tensor:
        return lens.embeddings(trace, sites)[0].float()

    def vectors(kind: str) -> list[Site]:
        return [Site("vector", name=f"{kind}.{site.layer}.{site.head}") for site in bench.sites]

    return {
        WHOLE: of(bench.sites),
        INSIDE: of(vectors("in")),
        OUTSIDE: of(vectors("out")),
        ATTENTION: of([Site("group", name=name) for name in groups]),
        MLPS: of([Site("mlp_out", layer) for layer in range(spec.n_layers)]),
    }


def removed(bench: Bench, pair: Overlaid, scene: Scene) -> dict[str, Tensor]:
    """The drop of the objective (N) when each component of a kind is resampled from the base."""
    encoder, clean = bench.encoder, scene.objective(scene.prefix.embedding[0].float())
    base = record_prefix(encoder, encoder.preprocess([pair.base]))
    layers = [[bench.sites.index(site) for site in sites] for sites in by_layer(bench.sites)]
    alone: list[Tensor] = []
    for layer in range(encoder.spec.n_layers):
        site = Site("mlp_out", layer)
        change = Resample(site, value=record_from(encoder, base, [site])[site])
        alone.append(resume(encoder, scene.prefix, layer, [0], [change])[0].float())
    heads = one_shot(scene)
    return {
        **dict.fromkeys((WHOLE, INSIDE, OUTSIDE), heads),
        ATTENTION: clean - scene.objective(scene.ablated(layers)),
        MLPS: clean - scene.objective(torch.stack(alone)),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of prepared pictures")
    parser.add_argument("--count", type=int, default=24, help="pairs")
    given = parser.parse_args()
    pair = steerlens.load("emoji")
    pairs = scene_pairs(given.data, 2, given.count)
    bench, options = make_bench(pair, pairs.reference), OverlayOptions(pair.decoder.spec.defaults)
    asked: dict[str, list[Tensor]] = {}
    made: dict[str, list[Tensor]] = {}
    effects: dict[str, list[Tensor]] = {}
    fidelity: dict[str, list[Tensor]] = {}
    for one in pairs.reported:
        scene = open_scene(bench, one, options)
        for kind, drop in removed(bench, one, scene).items():
            effects.setdefault(kind, []).append(drop)
        rows = steered(bench, one)
        everything = torch.cat(list(rows.values()))
        events = redecode(bench.encoder, pair.decoder, everything, [0] * len(everything), options.decode)
        found = run_to_end(events)
        sizes = [len(part) for part in rows.values()]
        for (kind, wanted), picture in zip(rows.items(), found.embeddings.split(sizes), strict=True):
            asked.setdefault(kind, []).append(scene.objective(wanted))
            made.setdefault(kind, []).append(scene.objective(picture))
            fidelity.setdefault(kind, []).append(cosine_similarity(wanted, picture).mean())
    names = [one.id for one in pairs.reported]
    print(f"{len(names)} pairs; Spearman over components with the drop of the objective when one is resampled")
    print("| component | how many | not decoded | decoded | fidelity |\n| --- | --- | --- | --- | --- |")
    for kind, drops in effects.items():
        sides = [
            str(correlation_estimate(torch.stack(side[kind]), torch.stack(drops), names)) for side in (asked, made)
        ]
        print(f"| {kind} | {len(drops[0])} | {' | '.join(sides)} | {float(torch.stack(fidelity[kind]).mean()):.2f} |")
    for kind in (INSIDE, OUTSIDE):
        both = [
            str(
                difference_estimate(
                    torch.stack(side[kind]), torch.stack(side[WHOLE]), torch.stack(effects[WHOLE]), names
                )
            )
            for side in (asked, made)
        ]
        print(f"{kind}, minus {WHOLE}: not decoded {both[0]}, decoded {both[1]}")


if __name__ == "__main__":
    main()
