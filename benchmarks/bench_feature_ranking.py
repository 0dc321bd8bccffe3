"""Activations and ranking of all features of a large sparse autoencoder against the least that they need.

Ours is the survey with which `steerlens lens --sae` chooses features: preprocessing, trace, activations, fidelity,
ranking. The other side is a plain forward pass of the native model on the same inputs and one product with the
encoder's weights. Both take one picture at a time, in turn in one process, whose times are compared; peak memory is
that of a process for each side.

    OMP_NUM_THREADS=1 python benchmarks/bench_feature_ranking.py --clock cpu
    python benchmarks/bench_feature_ranking.py --size emoji --features 4096 --pictures 8    # a quick look
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from timing import CLOCKS, SIZES, machine, random_encoder

from steerlens.encoders.clip import CLIPEncoder
from steerlens.images import Picture
from steerlens.lenses import Strength
from steerlens.saes import SparseAutoencoder, TopK
from steerlens.sites import Site
from steerlens.sweep.survey import Surveyor, surveyed
from steerlens.sweep.units import UnitRequest

BARS = {"time": 1.3, "memory": 1.2}


def random_sae(width: int, features: int, layer: int) -> SparseAutoencoder:
    """An autoencoder with random weights, 64 features active; the encoder is the decoder's transpose, as at the start
    of a training."""
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(features, width, generator=generator), dim=-1)
    zeros = torch.zeros(features), torch.zeros(width)
    return SparseAutoencoder("big", Site("resid_post", layer), W_dec.T.contiguous(), W_dec, *zeros, TopK(64))


def pictures(count: int) -> dict[str, Picture]:
    """Pictures of noise, all different."""
    rng = np.random.default_rng(0)
    made = [Image.fromarray(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)) for _ in range(count)]
    return {str(place): Picture(str(place), image, f"{place:064x}") for place, image in enumerate(made)}


def surveyor(encoder: CLIPEncoder, sae: SparseAutoencoder) -> Surveyor:
    """The survey of the strongest 24 features."""
    request = UnitRequest("", strongest_of=(sae.name,))
    return Surveyor(encoder, encoder.trace, {sae.name: sae}, Strength("rho", 1.0), None, request, 24, "activation")


@torch.no_grad()
def least(encoder: CLIPEncoder, sae: SparseAutoencoder, picture: Picture) -> torch.Tensor:
    """A forward pass of the native model, and one product."""
    inputs = encoder.preprocess([picture.image])
    output = encoder.model.vision_model(**inputs)
    return output.last_hidden_state[:, 0] @ sae.W_enc


def sides(options: argparse.Namespace) -> dict[str, Callable[[Picture], object]]:
    """Both sides, for one picture."""
    encoder = random_encoder(options.size, "cpu", torch.float32)
    sae = random_sae(encoder.spec.width, options.features, encoder.spec.n_layers - 2)
    ours = surveyor(encoder, sae)
    return {
        "ours": lambda picture: surveyed(ours.survey({"one": picture})),
        "least": lambda picture: least(encoder, sae, picture),
    }


def peak(options: argparse.Namespace, side: str) -> float:
    """Largest resident set in MB of a process that runs one side on 4 pictures."""
    command = [sys.executable, __file__, "--size", options.size, "--features", str(options.features), "--side", side]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    """Prints seconds and memory of both sides, their ratios and the bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="vit-l-14")
    parser.add_argument("--features", type=int, default=65_536)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--side", choices=["ours", "least"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        call = sides(options)[options.side]
        for picture in pictures(4).values():
            call(picture)
        print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3))
        return
    memory = {side: peak(options, side) for side in ("least", "ours")}
    calls, now = sides(options), CLOCKS[options.clock]
    taken = dict.fromkeys(calls, 0.0)
    for place, picture in enumerate([*pictures(1).values(), *pictures(options.pictures).values()]):
        for side, call in calls.items():
            start = now()
            call(picture)
            if place:  # the first round is not counted
                taken[side] += now() - start
    print(f"{options.size}, {options.features:,} features, {options.pictures} pictures; {machine('cpu')}")
    for side in ("least", "ours"):
        print(f"{side:5}  {taken[side]:8.2f} s ({options.clock})   peak {memory[side]:7.0f} MB")
    ratios = {"time": taken["ours"] / taken["least"], "memory": memory["ours"] / memory["least"]}
    for name, ratio in ratios.items():
        print(f"{name}: ratio {ratio:.2f} (bar {BARS[name]}): {'met' if ratio <= BARS[name] else 'MISSED'}")


if __name__ == "__main__":
    main()
