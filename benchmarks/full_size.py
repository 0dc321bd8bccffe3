"""The paper's model at its full size with random weights: saved in the hub's layout, loaded, traced, decoded, timed.

    python benchmarks/full_size.py --folder /path/with/8GB [--steps 2] [--size 512] [--keep]

It shows that the real loading code (`steerlens.loading`, every check included) takes the real architectures, that the
decomposition is exact at 48 layers x 16 heads, and that a picture comes out. The picture shows noise.
"""

import argparse
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import torch

import steerlens as sl
from steerlens.conditioning import Conditioning
from steerlens.decoders.base import DecodeOptions, decode
from steerlens.testing.tiny import save_tiny_pair
from steerlens.zoo.architecture import on_meta, package_configs
from steerlens.zoo.cards import card


def random_model(component: str, config: Any, dtype: torch.dtype) -> Any:
    """A model of full size with small random weights, made in its final precision."""
    model = on_meta(component, config).to(dtype).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim > 1:
                fan_in = tensor[0].numel()
                tensor.uniform_(-1, 1, generator=generator).mul_((3 / fan_in) ** 0.5)
            else:
                tensor.fill_(1.0 if name.endswith("norm.weight") or ("norm" in name and "weight" in name) else 0.0)
        for name, buffer in model.named_buffers():
            if name.endswith("position_ids"):
                buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
    return model


def save_full_size(folder: Path, dtype: torch.dtype) -> None:
    """Saves a random pair of the paper's sizes in the hub's folder layout."""
    configs = package_configs(card("kandinsky-2.2"))
    # The small files (image processor, scheduler, indices) come from a tiny pair in the same layout.
    save_tiny_pair(folder, layout="hub")
    processor = folder / "kandinsky-2-2-prior" / "image_processor" / "preprocessor_config.json"
    processor.write_text(processor.read_text().replace(": 16", ": 224"))
    shutil.rmtree(folder / "kandinsky-2-2-prior" / "text_encoder")
    places = {
        "image_encoder": folder / "kandinsky-2-2-prior" / "image_encoder",
        "unet": folder / "kandinsky-2-2-decoder" / "unet",
        "movq": folder / "kandinsky-2-2-decoder" / "movq",
    }
    for component, place in places.items():
        shutil.rmtree(place)
        random_model(component, configs[component], dtype).save_pretrained(place, max_shard_size="20GB")


def timed(label: str, seconds: float) -> None:
    """Prints one line of the table, with the largest memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{label:<58} {seconds:8.1f} s   peak {peak:5.1f} GB")


def main() -> None:
    """Runs every step once and prints how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where to put about 7 GB of random weights")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--device", default=None)
    parser.add_argument("--keep", action="store_true", help="leave the weights there")
    arguments = parser.parse_args()
    start = time.perf_counter()
    save_full_size(arguments.folder, torch.bfloat16)
    timed("saving random weights in the hub's layout", time.perf_counter() - start)
    try:
        look(arguments)
    finally:
        if not arguments.keep:
            shutil.rmtree(arguments.folder)


def look(arguments: argparse.Namespace) -> None:
    """Loads, traces, steers and decodes."""
    start = time.perf_counter()
    pair = sl.load("kandinsky-2.2", local=arguments.folder, dtype="bfloat16", device=arguments.device)
    timed("steerlens.loading with every check", time.perf_counter() - start)
    inputs = pair.encoder.preprocess([sl.sample_picture().image])
    pair.encoder.embed(inputs)
    start = time.perf_counter()
    pair.encoder.embed(inputs)
    plain = time.perf_counter() - start
    timed("plain forward pass, one picture", plain)
    start = time.perf_counter()
    trace = pair.encoder.trace(inputs)
    traced = time.perf_counter() - start
    timed(f"trace, one picture ({traced / plain:.2f} x the forward pass)", traced)
    print(
        f"decomposition: relative error {trace.relative_error():.2g} in bfloat16; {trace.nbytes / 1e6:.1f} MB captured"
    )
    start = time.perf_counter()
    sites = sl.all_heads(pair.encoder.spec.n_layers, pair.encoder.spec.n_heads)
    steered = sl.SteeringLens(pair.encoder, sl.Strength("rho", 1.0)).embeddings(trace, sites)[0]
    timed(f"steered embeddings of {len(sites)} heads", time.perf_counter() - start)
    side = arguments.size
    options = DecodeOptions(arguments.steps, 4.0, "dpm++", (side, side))
    start = time.perf_counter()
    pictures = decode(pair.decoder, Conditioning("image_embedding", steered[:1].float()), [0], options)
    timed(f"one picture, {side} x {side}, {arguments.steps} step(s) with guidance", time.perf_counter() - start)
    print(f"picture {tuple(pictures.shape)}, finite: {bool(torch.isfinite(pictures).all())}")


if __name__ == "__main__":
    main()
