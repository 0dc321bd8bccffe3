"""Writes docs/scaling.md: how the cost of a sweep grows, and worked plans for the paper's model.

Operations are counted on the meta device; seconds of each stage are measured here on the bundled pair; plans divide the
counted operations by a throughput that is stated and, until a GPU was at hand, assumed.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from timing import machine

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import DecodeOptions, decode
from steerlens.decoders.diffusion import default_batch_size
from steerlens.images import eight_bit, png_bytes
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.strength import Strength
from steerlens.sites import all_heads
from steerlens.sweep.ray_engine import BATCHES_OF_A_PART
from steerlens.zoo import sample_picture
from steerlens.zoo.cost import Cost, cost_of
from steerlens.zoo.load import load


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call, after one that is not counted."""
    taken: list[float] = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return sorted(taken[1:])[repeats // 2]


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def counted() -> str:
    """Operations of the paper's model, by stage, steps and resolution."""
    rows: list[list[str]] = []
    for side in (512, 768, 1024):
        cost = cost_of("kandinsky-2.2", size=(side, side), device="cpu")
        options = DecodeOptions(10, 4.0, "dpm++", (side, side))
        per_picture = [cost.picture_flops(replace(options, steps=steps)) for steps in (10, 25, 100)]
        half = cost.picture_flops(replace(options, steps=10, guidance_interval=(0.0, 0.5)))
        stages = (cost.encoder_flops, cost.unet_flops, cost.movq_flops, *per_picture, half)
        rows.append([f"{side} x {side}", *(f"{value / 1e12:.3g}" for value in stages)])
    headings = ["pictures", "encoder", "UNet, one pass", "MoVQ", "10 steps", "25 steps", "100 steps"]
    return table([*headings, "10 steps, guidance in the first half"], rows)


def measured(repeats: int) -> str:
    """Seconds of every stage on the bundled pair, and how decoding grows."""
    pair, picture = load("emoji"), sample_picture()
    encoder, decoder = pair.encoder, pair.decoder
    inputs = encoder.preprocess([picture.image])
    trace = encoder.trace(inputs, attention=True)
    heads = all_heads(encoder.spec.n_layers, encoder.spec.n_heads)
    lens, defaults = SteeringLens(encoder, Strength("rho", 1.0)), decoder.spec.defaults
    values = lens.embeddings(trace, heads)[0].float()
    pictures = decode(decoder, Conditioning("image_embedding", values[:16]), [0] * 16, defaults)

    def decoding(count: int, steps: int) -> Callable[[], object]:
        rows = Conditioning("image_embedding", values[:count])
        return lambda: decode(decoder, rows, [0] * count, replace(defaults, steps=steps))

    def store() -> None:
        for array in eight_bit(pictures):
            png_bytes(Image.fromarray(array))

    count = len(heads)
    each = [
        (
            "preprocess and trace a picture",
            median_seconds(lambda: encoder.trace(encoder.preprocess([picture.image]), attention=True), repeats),
        ),
        (f"steer {count} heads, all of them", median_seconds(lambda: lens.embeddings(trace, heads), repeats)),
        (f"decode {count} pictures, {defaults.steps} steps", median_seconds(decoding(count, defaults.steps), repeats)),
        (
            f"decode {count} pictures, {defaults.steps // 2} steps",
            median_seconds(decoding(count, defaults.steps // 2), repeats),
        ),
        (
            f"decode {count // 2} pictures, {defaults.steps} steps",
            median_seconds(decoding(count // 2, defaults.steps), repeats),
        ),
        (
            "embed 16 decoded pictures again",
            median_seconds(lambda: encoder.embed(encoder.preprocess_tensor(pictures)), repeats),
        ),
        ("write 16 pictures as PNG", median_seconds(store, repeats)),
    ]
    return table(["stage", "seconds"], [[name, f"{seconds:.3g}"] for name, seconds in each])


def plan(cost: Cost, steps: int, flops: float, pictures: int, cells: int, choice: str) -> list[list[str]]:
    """A sweep on 1, 8 and 64 GPUs: hours, and the share of time that the last parts leave workers idle."""
    options = DecodeOptions(steps, 4.0, "dpm++", cost.size)
    batch = default_batch_size(cost.size, cost.scale, torch.device("cuda"))
    part, total = BATCHES_OF_A_PART * batch, pictures * cells
    parts = pictures * math.ceil(cells / part)
    rows: list[list[str]] = []
    for gpus in (1, 8, 64):
        part_seconds = part * cost.picture_flops(options) / flops
        rounds = math.ceil(parts / gpus)
        seconds = min(rounds * part_seconds, part_seconds * math.ceil(total / part / gpus))
        ideal = total * cost.picture_flops(options) / flops / gpus
        rows.append(
            [
                choice,
                f"{total:,}",
                str(gpus),
                duration(seconds),
                f"{max(0.0, 1 - ideal / seconds):.0%}",
                f"{total * 0.4e-3:.3g} GB",
            ]
        )
    return rows


def duration(seconds: float) -> str:
    """Seconds in the unit that fits."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def page(options: argparse.Namespace) -> str:
    """The page."""
    cost = cost_of("kandinsky-2.2", device="cpu")
    heads, layers = cost.n_layers * cost.n_heads, cost.n_layers
    both = 2 * heads + layers
    worked = [
        *plan(cost, 10, options.flops, 1, both, f"one picture: {heads} heads under both lenses, {layers} layers"),
        *plan(cost, 10, options.flops, 1000, both, "a thousand pictures, the same"),
        *plan(cost, 10, options.flops, 1000, 2 * 20 + layers, "a thousand pictures, `--decode top:20`"),
    ]
    headings = ["sweep", "pictures decoded", "GPUs", "time", "idle at the end", "disk"]
    return TEMPLATE.format(
        counted=counted(),
        machine=machine("cpu"),
        measured=measured(options.repeats),
        flops=f"{options.flops / 1e12:.0f}",
        source=options.source,
        plans=table(headings, worked),
    )


TEMPLATE = """<!-- Written by benchmarks/scaling.py; edit that. -->
# How the cost of a sweep grows

A sweep traces every input picture once, steers in closed form, and decodes. Decoding is nearly all of the cost:

    operations = pictures x (sites x lenses x seeds x (1 + controls)) x (passes x UNet + MoVQ + encoder)

with one pass a denoising step, and another where there is guidance. So cost is linear in pictures, heads, seeds and
steps; it grows faster than linearly with the number of pixels, since attention does. Everything else is small: tracing
is one forward pass a picture, and steering all heads is a product of matrices.

## What the paper's model takes

`kandinsky-2.2`, in units of 10^12 operations (a multiplication and an addition count as two), guidance 4:

{counted}

## What each stage takes here

The bundled pair on this machine ({machine}), decoder at its defaults:

{measured}

## What to turn

| option | effect |
|---|---|
| `--decode top:20` | tracing and ranking all heads without decoding, pictures for the 20 best alone |
| `--steps` | linear; see `steerlens study decoder` for how few are enough |
| `--guidance-interval 0 0.5` | the unconditional half of the passes is left out in half of the steps |
| `--controls 0` | half as many steered pictures, and no comparison with random directions |
| `--batch-size` | found on a GPU by doubling while that is faster; halved when memory runs out, and nothing is lost |
| `--compile` | on CUDA, for many pictures of one size |
| `--engine ray` | more workers: this machine's, or a cluster's |

Memory does not grow with the number of pictures: inputs are opened one by one, and finished cells go to the disk.

## Worked plans for the paper's model

10 steps with guidance at 512 x 512, at {flops} x 10^12 operations a second on each GPU: {source}. Parts of the work are
handed out as workers ask for them; the share of time in which some of them are idle at the end comes from whole parts.
Pictures are taken as 0.4 MB each on the disk.

{plans}

On a cluster (`pip install 'steerlens[ray]'` on every machine, the model's files where each can read them):

    ray start --head                          # on the first machine
    ray start --address=FIRST:6379            # on each of the others
    steerlens lens photos/*.jpg --model kandinsky-2.2 --steps 10 --decode top:20 --engine ray --address auto --out atlas

The run directory lies on the machine that gives the command, and that process alone writes to it. A worker or a machine
that dies costs the parts it had in hand, which go to others; the same command goes on after the process itself was
stopped. Start workers with a share of a GPU (`--worker-gpus 0.5`) where one does not fill it.
"""


def main() -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "scaling.md")
    parser.add_argument("--flops", type=float, default=346e12, help="operations a second of a GPU, for the plans")
    parser.add_argument(
        "--source",
        default="35 % of an H100's dense bfloat16 peak, which is what we aim at and have **not measured** yet",
        help="where that figure comes from, in words",
    )
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    options.out.write_text(page(options))
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
