"""The total lens on every head, with ablations, against plain hooked passes from the first layer on.

A full sweep is all layers by all heads of one picture, each scaled and ablated. The plain side runs batches of as many
rows, one intervention each, but from the first layer on. `--layers` samples layers at even distances, so that their
mean cost is that of all. Prints both times, their ratio, and how far the embeddings differ.

    python benchmarks/bench_total.py --size vit-b-16 --layers 12                                   # all 144 heads
    python benchmarks/bench_total.py --size vit-bigg-14 --layers 48 --dtype bfloat16 --device cuda # all 768 heads
"""

import argparse

import torch
from timing import CLOCKS, SIZES, interleaved, machine, random_encoder

from steerlens.encoders.clip import CLIPEncoder
from steerlens.interventions import ByRow, Intervention, Scale, Zero
from steerlens.lenses import Change, TotalLens
from steerlens.scores import cosine_distance
from steerlens.sites import Site


def from_the_changed_layer(lens: TotalLens, pixels: torch.Tensor, sites: list[Site]) -> torch.Tensor:
    """Scaled and ablated heads by the total lens, its clean pass and trace included."""
    changes = [Change(site, kind) for site in sites for kind in ("scaled", "ablated")]
    return lens.changed(lens.clean(pixels), changes)[0]


def full_passes(
    encoder: CLIPEncoder, pixels: torch.Tensor, sites: list[Site], factors: torch.Tensor, rows: int
) -> torch.Tensor:
    """The same by plain hooked passes; as many rows a pass."""
    parts: list[torch.Tensor] = []
    for start in range(0, len(sites), rows // 2):
        changes: list[Intervention] = []
        for place, site in enumerate(sites[start : start + rows // 2]):
            factor = float(factors[start + place])
            changes.append(ByRow(site, inner=Scale(site, factor=factor), rows=(2 * place,)))
            changes.append(ByRow(site, inner=Zero(site), rows=(2 * place + 1,)))
        parts.append(encoder.embed(pixels.expand(len(changes), -1, -1, -1), changes))
    return torch.cat(parts)


def main() -> None:
    """Prints seconds of both sides, their ratio, and how far they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="vit-l-14")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--strength", default="rho=1")
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
    lens = TotalLens(encoder, options.strength)
    factors = 1 + lens.coefficients(lens.clean(pixels), sites)[0]
    rows, results = 2 * H, dict[str, torch.Tensor]()
    with torch.no_grad():
        seconds = interleaved(
            {
                "from the changed layer": lambda: results.update(fast=from_the_changed_layer(lens, pixels, sites)),
                "full passes": lambda: results.update(slow=full_passes(encoder, pixels, sites, factors, rows)),
            },
            options.repeats,
            options.clock,
        )
    fast, slow = results["fast"].float(), results["slow"].float()
    print(machine(options.device))
    which = f"all {L} layers" if count == L else f"layers {', '.join(map(str, layers))} of {L}"
    print(
        f"{options.size}, {options.dtype}: {len(sites)} heads of {which}, {options.strength} and ablated, one picture, "
        f"{rows} rows a pass"
    )
    for name, value in seconds.items():
        print(f"  {name}: {value:.2f} s ({500 * value / len(sites):.1f} ms a change)")
    print(f"  ratio: {seconds['full passes'] / seconds['from the changed layer']:.2f}x")
    print(f"  largest difference: {float((fast - slow).abs().max()):.2g} of {float(slow.abs().max()):.2g}")
    print(f"  cosine distance: {cosine_distance(fast, slow):.2g}")


if __name__ == "__main__":
    main()
