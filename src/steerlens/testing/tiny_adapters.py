"""Random weights of IP-Adapters for tiny pipelines, with the names of the hub's files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steerlens.testing.tiny_parts import EMBEDDING_SIZE, WIDTH, shaken


def adapter_weights(family: str, pipeline: Any, seed: int = 0) -> dict[str, dict[str, Tensor]]:
    """Draws random weights of an IP-Adapter for a pipeline's UNet, with the names of the hub's files."""
    from diffusers.models.embeddings import ImageProjection, IPAdapterPlusImageProjection

    unet = pipeline.unet
    size = unet.config.cross_attention_dim
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        if family == "ip-adapter-plus-sd15":
            plus = IPAdapterPlusImageProjection(
                embed_dims=WIDTH, output_dims=size, hidden_dims=16, heads=1, num_queries=4
            )
            image = _plus_names(shaken(plus, 0.2).state_dict())
        else:
            plain = ImageProjection(image_embed_dim=EMBEDDING_SIZE, cross_attention_dim=size, num_image_text_embeds=4)
            image = {key.replace("image_embeds", "proj"): value for key, value in plain.state_dict().items()}
        attention: dict[str, Tensor] = {}
        crossing = [name for name in unet.attn_processors if not name.endswith("attn1.processor")]
        for index, name in enumerate(crossing):
            width = _hidden_size(name, unet.config.block_out_channels)
            for part in ("to_k_ip", "to_v_ip"):
                attention[f"{2 * index + 1}.{part}.weight"] = nn.Linear(size, width, bias=False).weight.detach()
    return {"image_proj": dict(image), "ip_adapter": attention}


def save_adapter(weights: Mapping[str, Mapping[str, Tensor]], file: Path) -> None:
    """Saves an adapter's weights in one file, as on the hub."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    flat = {
        f"{group}.{key}": value.contiguous() for group, tensors in weights.items() for key, value in tensors.items()
    }
    save_file(flat, file)


def _plus_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replaces diffusers' names by those of the hub's files."""
    named = {key: weights[key] for key in ("latents", "proj_in.weight", "proj_in.bias")}
    named |= {f"{part}.{kind}": weights[f"{part}.{kind}"] for part in ("proj_out", "norm_out") for kind in _KINDS}
    for index in range(sum(key.endswith("attn.to_q.weight") for key in weights)):
        layer = f"layers.{index}."
        for norm, own in (("norm1", "ln0"), ("norm2", "ln1")):
            named |= {f"{layer}0.{norm}.{kind}": weights[f"{layer}{own}.{kind}"] for kind in _KINDS}
        named[f"{layer}0.to_q.weight"] = weights[f"{layer}attn.to_q.weight"]
        keys, values = (weights[f"{layer}attn.{part}.weight"] for part in ("to_k", "to_v"))
        named[f"{layer}0.to_kv.weight"] = torch.cat([keys, values])
        named[f"{layer}0.to_out.weight"] = weights[f"{layer}attn.to_out.0.weight"]
        named |= {f"{layer}1.0.{kind}": weights[f"{layer}ff.0.{kind}"] for kind in _KINDS}
        named[f"{layer}1.1.weight"] = weights[f"{layer}ff.1.net.0.proj.weight"]
        named[f"{layer}1.3.weight"] = weights[f"{layer}ff.1.net.2.weight"]
    return named


_KINDS = ("weight", "bias")


def _hidden_size(name: str, channels: tuple[int, ...]) -> int:
    if name.startswith("mid_block"):
        return channels[-1]
    block = int(name.split(".")[1])
    return (channels if name.startswith("down_blocks") else channels[::-1])[block]
