"""`trace` against the plain forward pass of the same model: time, and bytes against caching every activation."""

import argparse

import torch
from timing import CLOCKS, SIZES, interleaved, machine, random_encoder

from steerlens.encoders.clip import CLIPEncoder


def cache_everything(encoder: CLIPEncoder, batch: int, itemsize: int) -> tuple[int, int]:
    """Bytes that a tool holds which caches every activation on every token, without and with per-head results."""
    spec, mlp = encoder.spec, encoder.model.config.intermediate_size
    T, D, H = spec.n_tokens, spec.width, spec.n_heads
    # resid_pre, resid_mid, resid_post, attn_out, mlp_out; q, k, v, z; two normalised inputs
    per_token = T * D * (5 + 4 + 2)
    scores_and_patterns = 2 * H * T * T
    mlp_before_and_after = 2 * T * mlp
    layer = per_token + scores_and_patterns + mlp_before_and_after
    around = 3 * T * D + spec.embedding_size  # embed, its norm, the final norm; the embedding
    plain = batch * itemsize * (spec.n_layers * layer + around)
    return plain, plain + batch * itemsize * spec.n_layers * H * T * D


def main() -> None:
    """Prints seconds and bytes of both sides, and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="vit-l-14")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()

    encoder = random_encoder(options.size, options.device, getattr(torch, options.dtype))
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(options.batch, 3, *encoder.spec.image_size, generator=generator).to(
        encoder.device, encoder.dtype
    )

    @torch.no_grad()
    def plain() -> torch.Tensor:
        return encoder.model(pixel_values=pixels).image_embeds

    sides = {
        "plain": plain,
        "trace": lambda: encoder.trace(pixels),
        "with attention": lambda: encoder.trace(pixels, attention=True),
    }
    seconds = interleaved(sides, options.repeats, options.clock)
    held = encoder.trace(pixels).nbytes
    held_with = encoder.trace(pixels, attention=True).nbytes
    everything, with_results = cache_everything(encoder, options.batch, encoder.dtype.itemsize)
    print(f"machine          {machine(options.device)}; {options.clock} clock")
    print(f"encoder          {encoder.spec.name}, batch {options.batch}, {options.dtype}")
    for name, value in seconds.items():
        print(f"{name:16} {value:.4f} s")
    print(f"RATIO of time    {seconds['trace'] / seconds['plain']:.3f}x the plain pass (to reach: 1.10x)")
    print(f"                 {seconds['with attention'] / seconds['plain']:.3f}x with attention")
    print(f"held by trace    {held / 1e6:.2f} MB ({held_with / 1e6:.2f} MB with attention)")
    print(f"every activation {everything / 1e6:.0f} MB; {with_results / 1e6:.0f} MB with per-head results (counted)")
    print(f"RATIO of bytes   {held / everything:.3%}; {held / with_results:.3%} with per-head results (to reach: 1 %)")
    print(f"                 {held_with / everything:.3%}; {held_with / with_results:.3%} for a trace with attention")


if __name__ == "__main__":
    main()
