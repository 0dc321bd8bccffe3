"""Ablating every head from cached prefixes against naive full passes, one intervention each: time and exactness.

A full sweep is all layers by all heads of one picture. The naive side runs the same batches of rows, but from the first
layer on. `--layers` samples layers at even distances, so that their mean cost is that of all. The importance study
sweeps a picture three times, once for each ablation.

    python benchmarks/bench_ablation.py --size vit-bigg-14 --layers 48 --dtype bfloat16 --device cuda    # all 768 heads
"""

import argparse

import torch
from timing import CLOCKS, SIZES, interleaved, machine, random_encoder

from steerlens.encoders.clip import CLIPEncoder
from steerlens.encoders.prefix import Prefix, record_prefix
from steerlens.interventions import ByRow, Zero
from steerlens.progress import run_to_end
from steerlens.scores import cosine_distance
from steerlens.sites import Site
from steerlens.studies.shared import ABLATIONS, ablate

_PICTURES = 100
"""Held-out pictures of a full importance study."""


def from_prefix(encoder: CLIPEncoder, prefix: Prefix, sites: list[Site]) -> torch.Tensor:
    """Total effects as the studies compute them."""
    events = ablate(encoder, prefix, sites, "zero", batch=encoder.spec.n_heads)
    return run_to_end(events).total[0]


def naive(encoder: CLIPEncoder, pixels: torch.Tensor, sites: list[Site]) -> torch.Tensor:
    """The same, every pass from the first layer on; as many rows a pass."""
    H = encoder.spec.n_heads
    parts = []
    for start in range(0, len(sites), H):
        changes = [ByRow(site, inner=Zero(site), rows=(row,)) for row, site in enumerate(sites[start : start + H])]
        parts.append(encoder.embed(pixels.expand(len(changes), -1, -1, -1), changes))
    return torch.cat(parts)


def main() -> None:
    """Prints seconds of both sides, their ratio, and how far they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="vit-l-14")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()

    encoder = random_encoder(options.size, options.device, getattr(torch, options.dtype))
    L, H = encoder.spec.n_layers, encoder.spec.n_heads
    count = min(options.layers, L)
    layers = [round((place + 0.5) * L / count - 0.5) for place in range(count)]
    sites = [Site("head", layer, head) for layer in layers for head in range(H)]
    pixels = torch.randn(1, 3, *encoder.spec.image_size, generator=torch.Generator().manual_seed(1))
    pixels = pixels.to(encoder.device, encoder.dtype)
    prefix = record_prefix(encoder, pixels)
    fast, slow = from_prefix(encoder, prefix, sites).float(), naive(encoder, pixels, sites).float()
    seconds = interleaved(
        {
            "from prefixes": lambda: from_prefix(encoder, record_prefix(encoder, pixels), sites),
            "full passes": lambda: naive(encoder, pixels, sites),
        },
        options.repeats,
        options.clock,
    )
    print(machine(options.device))
    which = f"all {L} layers" if count == L else f"layers {', '.join(map(str, layers))} of {L}"
    print(f"{options.size}, {options.dtype}: {len(sites)} heads of {which}, one picture, {H} rows a pass")
    for name, value in seconds.items():
        study = value * L / count * len(ABLATIONS) * _PICTURES
        print(
            f"  {name}: {value:.2f} s ({1000 * value / len(sites):.1f} ms a head); {_PICTURES} pictures of the "
            f"importance study with {len(ABLATIONS)} ablations, scaled: {study / 60:.1f} minutes"
        )
    print(f"  ratio: {seconds['full passes'] / seconds['from prefixes']:.2f}x")
    print(f"  largest difference: {float((fast - slow).abs().max()):.2g} of {float(slow.abs().max()):.2g}")
    print(f"  cosine distance: {cosine_distance(fast, slow):.2g}")


if __name__ == "__main__":
    main()
