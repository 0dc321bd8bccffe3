"""Largest relative error of the sum of a trace's components against the final residual, in float32.

    python benchmarks/bench_decomposition.py [--model emoji]

Prints one line a model: tiny models of several shapes, the pair, and one of the size of ViT-B/16, all real classes.
"""

import argparse

import numpy as np
import torch
from PIL import Image
from timing import random_encoder

import steerlens as sl
from steerlens.encoders.base import Encoder
from steerlens.testing.tiny import tiny_encoder


def error_of(encoder: Encoder, n_pictures: int) -> float:
    """Largest relative error over pictures."""
    random, (height, width) = np.random.default_rng(0), encoder.spec.image_size
    noise = [random.integers(0, 255, (height, width, 3), dtype=np.uint8) for _ in range(n_pictures)]
    pictures = [*map(Image.fromarray, noise), sl.sample_picture().image]
    return encoder.trace(encoder.preprocess(pictures)).relative_error()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji", help="a pair whose encoder is measured too")
    arguments = parser.parse_args()
    shapes = [(1, 1, 8), (3, 2, 16), (6, 4, 32), (24, 4, 64)]
    encoders: dict[str, Encoder] = {
        f"tiny, random: {layers} layers x {heads} heads, width {width}": tiny_encoder(
            0, layers=layers, heads=heads, width=width
        )
        for layers, heads, width in shapes
    }
    encoders["ViT-B/16 size, random"] = random_encoder("vit-b-16", "cpu", torch.float32)
    encoders[f"{arguments.model}, trained"] = sl.load(arguments.model, dtype="float32").encoder
    for name, encoder in encoders.items():
        print(f"{name:<58} relative error {error_of(encoder, 8):.2g}")


if __name__ == "__main__":
    main()
