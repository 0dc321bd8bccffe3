"""A head's picture alone against the same picture in a batch of 64: pixel difference in float32, pictures a second."""

import argparse

import torch
from timing import interleaved, machine

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import DecodeOptions, decode
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.strength import Strength
from steerlens.loading import load
from steerlens.sites import all_heads


def main() -> None:
    """Prints the largest pixel difference, pictures a second of both sides, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="emoji", help="a card or a folder, as `steerlens.loading.load` takes it")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--sample", type=int, default=6, help="heads that are decoded alone")
    parser.add_argument("--steps", type=int, help="denoising steps; by default the decoder's own")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument(
        "--dtype", default="float32", help="precision that speed is measured in; pixels: always float32"
    )
    options = parser.parse_args()

    def rows(pair: object) -> tuple[Conditioning, DecodeOptions]:
        encoder, defaults = pair.encoder, pair.decoder.spec.defaults  # type: ignore[attr-defined]
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randn(1, 3, *encoder.spec.image_size, generator=generator).to(encoder.device, encoder.dtype)
        heads = (all_heads(encoder.spec.n_layers, encoder.spec.n_heads) * options.batch)[: options.batch]
        values = SteeringLens(encoder, Strength("rho", 1.0)).embeddings(encoder.trace(pixels), heads)[0]
        steps = options.steps or defaults.steps
        chosen = DecodeOptions(steps, defaults.guidance, defaults.scheduler, defaults.size, options.batch)
        return Conditioning("image_embedding", values.float()), chosen

    pair = load(options.model, dtype="float32")
    conditioning, chosen = rows(pair)
    seeds = [7] * options.batch
    sample = range(0, options.batch, max(1, options.batch // options.sample))
    together = decode(pair.decoder, conditioning, seeds, chosen)
    gap = max(
        float((decode(pair.decoder, conditioning.rows(row, row + 1), [7], chosen)[0] - together[row]).abs().max())
        for row in sample
    )
    timed = pair if options.dtype == "float32" else load(options.model, dtype=options.dtype)
    seconds = interleaved(
        {
            "alone": lambda: decode(timed.decoder, conditioning.rows(0, 1), [7], chosen),
            "batch": lambda: decode(timed.decoder, conditioning, seeds, chosen),
        },
        options.repeats,
    )
    alone, batch = 1 / seconds["alone"], options.batch / seconds["batch"]
    print(f"machine     {machine(timed.decoder.device.type)}")
    print(
        f"decoder     {pair.decoder.spec.name}: {chosen.scheduler}, {chosen.steps} steps, guidance {chosen.guidance:g}"
    )
    heads = f"{len(sample)} heads, alone and in a batch of {options.batch}, float32"
    print(f"difference  {gap * 255:.4f}/255 at most over {heads} (to reach: 2/255)")
    print(f"alone       {alone:.2f} pictures a second, {options.dtype}")
    print(f"batch       {batch:.2f} pictures a second, {options.dtype}")
    print(f"RATIO       {batch / alone:.2f}x faster in a batch of {options.batch}")


if __name__ == "__main__":
    main()
