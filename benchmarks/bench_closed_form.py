"""Steered embeddings of all heads: the closed form against the hook-by-hook definition of DSL.

The time of the closed form includes its trace. The definition takes two forward passes a head; it is timed on a sample
of heads and scaled to all of them, as the output says.
"""

import argparse

import torch
from timing import CLOCKS, SIZES, interleaved, machine, random_encoder

from steerlens.lenses.steering import SteeringLens, steer_and_patch
from steerlens.lenses.strength import Strength
from steerlens.sites import all_heads


def main() -> None:
    """Prints seconds of both sides, their ratio, and the largest cosine distance on the sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="vit-l-14")
    parser.add_argument("--sample", type=int, default=4, help="heads that the definition is timed on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()

    encoder = random_encoder(options.size, options.device, torch.float32)
    heads = all_heads(encoder.spec.n_layers, encoder.spec.n_heads)
    sample = heads[:: -(-len(heads) // options.sample)]
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(1, 3, *encoder.spec.image_size, generator=generator).to(encoder.device)
    lens = SteeringLens(encoder, Strength("s", 10.0))

    def closed() -> torch.Tensor:
        return lens.embeddings(encoder.trace(pixels), heads)[0]

    def definition() -> torch.Tensor:
        return torch.cat([steer_and_patch(encoder, pixels, site, 10.0) for site in sample])

    seconds = interleaved({"closed form": closed, "definition": definition}, options.repeats, options.clock)
    scaled = seconds["definition"] * len(heads) / len(sample)
    unit = [torch.nn.functional.normalize(side.double(), dim=-1) for side in (closed(), definition())]
    rows = [heads.index(site) for site in sample]
    distance = float((unit[0][rows] - unit[1]).square().sum(dim=-1).max() / 2)
    print(f"machine      {machine(options.device)}; {options.clock} clock")
    spec = encoder.spec
    print(f"encoder      {spec.name}: {spec.n_layers} x {spec.n_heads} heads, one picture, float32")
    print(f"closed form  {seconds['closed form']:.3f} s for all {len(heads)} heads, trace included")
    print(f"definition   {scaled:.1f} s for all {len(heads)} heads (timed on {len(sample)}, scaled)")
    print(f"distance     {distance:.1e} at most, cosine, on the sample")
    print(f"RATIO        {scaled / seconds['closed form']:.0f}x faster (to reach: 200x)")


if __name__ == "__main__":
    main()
