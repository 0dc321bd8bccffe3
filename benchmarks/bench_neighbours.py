"""Throughput of `steerlens neighbours index` against a plain batched loop over the same files.

    OMP_NUM_THREADS=1 python benchmarks/bench_neighbours.py [--pictures 1000] [--size vit-b-16] [--repeats 3]

The plain loop opens files with Pillow, hands each batch to the model's own image processor, and calls the native model.
The index does all of that, checks every file before it decodes it, hashes it, checks shapes and embeddings, and writes
its files. The forward pass alone, on inputs that are ready in memory, is the limit of both. JPEG files of 640 x 480.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timing import SIZES, interleaved, machine, random_encoder

from steerlens.decoders import index_pictures
from steerlens.encoders.clip import CLIPEncoder
from steerlens.progress import run_to_end

BATCH = 32


def write_pictures(folder: Path, count: int) -> list[Path]:
    """Writes JPEG files of smooth noise, which are about as large as photographs."""
    noise, files = np.random.default_rng(0), list[Path]()
    for number in range(count):
        coarse = noise.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        files.append(folder / f"{number:05d}.jpg")
        Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(files[-1], quality=90)
    return files


@torch.no_grad()
def plain_loop(encoder: CLIPEncoder, files: list[Path]) -> torch.Tensor:
    """Embeds files as a script without steerlens would."""
    rows = []
    for start in range(0, len(files), BATCH):
        images = [Image.open(file).convert("RGB") for file in files[start : start + BATCH]]
        inputs = encoder.processor(images=images, return_tensors="pt")
        rows.append(encoder.model(**inputs).image_embeds)
    return torch.cat(rows)


@torch.no_grad()
def forward_alone(encoder: CLIPEncoder, count: int) -> None:
    """Runs the native model on inputs in memory."""
    height, width = encoder.spec.image_size
    pixels = torch.zeros(BATCH, 3, height, width)
    for start in range(0, count, BATCH):
        encoder.model(pixel_values=pixels[: min(BATCH, count - start)])


def main() -> None:
    """Prints the throughput of the three, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--size", default="emoji", choices=list(SIZES))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    encoder = random_encoder(options.size, "cpu", torch.float32)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "pictures"
        folder.mkdir()
        files = write_pictures(folder, options.pictures)
        sides = {
            "plain loop": lambda: plain_loop(encoder, files),
            "index": lambda: run_to_end(index_pictures(encoder, folder, Path(place) / "index", batch_size=BATCH)),
            "forward pass alone": lambda: forward_alone(encoder, len(files)),
        }
        taken = interleaved(sides, options.repeats)
    print(machine("cpu"))
    print(f"{options.pictures} pictures of 640 x 480, encoder of the size of {options.size}, batches of {BATCH}")
    for name, seconds in taken.items():
        print(f"{name:20} {len(files) / seconds:8.1f} pictures/s")
    print(f"index / plain loop: {taken['plain loop'] / taken['index']:.2f} (bar: 0.9)")
    print(f"index / forward pass alone: {taken['forward pass alone'] / taken['index']:.2f}")


if __name__ == "__main__":
    main()
