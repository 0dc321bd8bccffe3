"""A plain second implementation of a CLIP vision tower: one tensor expression after another, open at every site.

It is what the hooks of the package are tested against, so it shares no code with them and uses no hook: it reads the
native model's weights and writes the mathematics out. Slow and obvious on purpose.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from steerlens.encoders.clip import CLIPEncoder
from steerlens.testing.tiny import tiny_processor

Edit = Callable[[str, Tensor], Tensor]
"""Takes a site's text form and what it holds on all tokens; gives what it shall hold."""


@dataclass(frozen=True)
class Size:
    """The sizes of one random model."""

    layers: int
    heads: int
    width: int
    image: int
    act: str
    attn: str
    patch: int = 8

    def __str__(self) -> str:
        tokens = (self.image // self.patch) ** 2 + 1
        return f"{self.layers}x{self.heads}-width{self.width}-{tokens}tokens-{self.act}-{self.attn}"

    @property
    def close(self) -> dict[str, float]:
        """How close a model in float64 comes to plain code; eager attention takes its softmax in float32 even so."""
        return {"rtol": 1e-5, "atol": 1e-6} if self.attn == "eager" else {"rtol": 1e-9, "atol": 1e-10}


SIZES = (
    Size(1, 1, 8, 8, "gelu", "sdpa"),
    Size(3, 2, 16, 16, "quick_gelu", "eager"),
    Size(4, 3, 24, 24, "gelu", "sdpa"),
    Size(2, 8, 32, 32, "quick_gelu", "sdpa"),
)


def random_encoder(size: Size, dtype: torch.dtype = torch.float64, seed: int = 0) -> CLIPEncoder:
    """An encoder whose every weight, bias and norm is random, and large enough for each part to matter."""
    config = CLIPVisionConfig(
        hidden_size=size.width,
        intermediate_size=3 * size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        image_size=size.image,
        patch_size=size.patch,
        projection_dim=size.width + 3,
        hidden_act=size.act,
        attn_implementation=size.attn,
    )
    model = CLIPVisionModelWithProjection(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.3 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
            else:
                parameter.copy_(noise * (parameter.numel() / parameter.shape[0]) ** -0.5)
    return CLIPEncoder(model.to(dtype), tiny_processor(size.image), name=str(size))


def random_pixels(encoder: CLIPEncoder, batch: int = 3, seed: int = 1) -> Tensor:
    """Normalised pixels, different for every picture."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, *encoder.spec.image_size, generator=generator).to(encoder.dtype)


@dataclass
class Plain:
    """What a plain forward pass gave: the embedding, what every site held on all tokens, and attention patterns."""

    embedding: Tensor
    sites: dict[str, Tensor] = field(default_factory=dict)
    patterns: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def plain_forward(encoder: CLIPEncoder, pixels: Tensor, edit: Edit | None = None) -> Plain:
    """The forward pass of a CLIP vision tower, written out, with an edit of what sites hold."""
    model, config = encoder.model, encoder.model.config
    vision = model.vision_model
    result = Plain(torch.empty(0))
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads

    def site(name: str, value: Tensor) -> Tensor:
        value = value if edit is None else edit(name, value)
        result.sites[name] = value
        return value

    def norm(layer: torch.nn.LayerNorm, x: Tensor) -> Tensor:
        x = x - x.mean(dim=-1, keepdim=True)
        return x / (x.square().mean(dim=-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias

    def act(x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x) if config.hidden_act == "quick_gelu" else functional.gelu(x)

    patch = vision.embeddings.patch_embedding.weight
    side = config.image_size // config.patch_size
    tokens = [vision.embeddings.class_embedding.expand(len(pixels), -1)]
    for row in range(side):
        for column in range(side):
            y, x = row * config.patch_size, column * config.patch_size
            square = pixels[:, :, y : y + config.patch_size, x : x + config.patch_size]
            tokens.append(torch.einsum("bcyx,wcyx->bw", square, patch))
    residual = torch.stack(tokens, dim=1) + vision.embeddings.position_embedding.weight
    residual = site("embed", norm(vision.pre_layrnorm, residual))

    for index, block in enumerate(vision.encoder.layers):
        residual = site(f"resid_pre.{index}", residual)
        attention, x = block.self_attn, norm(block.layer_norm1, residual)
        query, key, value = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
        attn_out = attention.out_proj.bias.expand_as(residual)
        patterns, values = [], []
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            logits = query[..., own] @ key[..., own].transpose(1, 2) / width**0.5
            patterns.append(logits.exp() / logits.exp().sum(dim=-1, keepdim=True))
            values.append(value[..., own])
            write = patterns[-1] @ values[-1] @ attention.out_proj.weight[:, own].T
            attn_out = attn_out + site(f"head.{index}.{head}", write)
        result.patterns.append(torch.stack(patterns, dim=1))
        result.values.append(torch.stack(values, dim=1))
        residual = site(f"resid_mid.{index}", residual + site(f"attn_out.{index}", attn_out))
        hidden = act(block.mlp.fc1(norm(block.layer_norm2, residual)))
        residual = site(f"resid_post.{index}", residual + site(f"mlp_out.{index}", block.mlp.fc2(hidden)))

    result.embedding = norm(vision.post_layernorm, residual[:, 0]) @ model.visual_projection.weight.T
    return result


def cosine_distance(a: Tensor, b: Tensor) -> float:
    """Largest `1 - cos` over rows, in float64 and without cancellation: half the squared distance of unit vectors."""
    a, b = functional.normalize(a.double(), dim=-1), functional.normalize(b.double(), dim=-1)
    return float((a - b).square().sum(dim=-1).max() / 2)
