"""Golden tensors: what a fixed small encoder gave when the mathematics was last looked at.

The weights are stored too, so that a new way of drawing random weights cannot move the figures. After a change that is
meant to move them, run `python tests/shared/golden.py` and say in the commit why.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from steerlens.encoders.clip import CLIPEncoder
from steerlens.interventions import Scale, Zero
from steerlens.lenses.diffusion import DiffusionLens
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.strength import Strength
from steerlens.sites import Site, all_heads
from steerlens.testing.tiny import tiny_encoder

FILE = Path(__file__).parents[1] / "golden" / "tiny_encoder.safetensors"
STRENGTHS = (Strength("s", 40.0), Strength("rho", 1.0), Strength("rho", -0.5))


def empty_encoder() -> CLIPEncoder:
    """An encoder of the stored sizes, whose weights are to be replaced."""
    return tiny_encoder(layers=2, heads=2, width=8, embedding_size=6, image_size=8, patch_size=4)


def stored() -> tuple[CLIPEncoder, dict[str, Tensor]]:
    """The stored encoder, and the stored pixels and results."""
    tensors = load_file(FILE)
    encoder = empty_encoder()
    encoder.model.load_state_dict({key[7:]: value for key, value in tensors.items() if key.startswith("weight.")})
    return encoder, {key: value for key, value in tensors.items() if not key.startswith("weight.")}


def results(encoder: CLIPEncoder, pixels: Tensor) -> dict[str, Tensor]:
    """Everything that is held against the stored values."""
    trace = encoder.trace(pixels, attention=True)
    assert trace.has_attention
    L, H = encoder.spec.n_layers, encoder.spec.n_heads
    sites = [*all_heads(L, H), Site("attn_out", 0), Site("mlp_out", 1)]
    found = {
        "trace.embed": trace.embed,
        "trace.head_values": trace.head_values,
        "trace.attn_out": trace.attn_out,
        "trace.mlp_out": trace.mlp_out,
        "trace.resid_post": trace.resid_post,
        "trace.embedding": trace.embedding,
        "trace.attention": trace.attention,
        "trace.writes": trace.stack(sites),
        "diffusion": DiffusionLens(encoder).embeddings(trace, sites),
        "zero.head.0.1": encoder.embed(pixels, [Zero(Site("head", 0, 1))]),
        "scale.resid_mid.1": encoder.embed(pixels, [Scale(Site("resid_mid", 1), tokens=(1, 2), factor=3.0)]),
    }
    for strength in STRENGTHS:
        lens = SteeringLens(encoder, strength)
        found[f"steering.{strength}"] = lens.embeddings(trace, sites)
        found[f"relative.{strength}"] = lens.relative_strength(trace, sites)
    return {key: value.contiguous() for key, value in found.items()}


def main() -> None:
    """Writes the file anew, from fixed seeds."""
    encoder = empty_encoder()
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    weights = {f"weight.{key}": value for key, value in encoder.model.state_dict().items()}
    save_file({**weights, "pixels": pixels, **results(encoder, pixels)}, FILE)


if __name__ == "__main__":
    main()
