"""Equal weights in transformers, open_clip and timm give equal traces: three libraries, one decomposition."""

from collections.abc import Mapping
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
)

from steerlens.encoders.base import Encoder
from steerlens.encoders.open_clip import OpenCLIPEncoder
from steerlens.encoders.timm import TimmEncoder
from steerlens.interventions import Scale, Zero
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.strength import Strength
from steerlens.sites import Site, SiteKind, all_heads, layer_sites
from steerlens.testing.encoder_checks import relative
from steerlens.testing.tiny import tiny_processor
from steerlens.testing.tiny_vit import EVA_VARIANTS, randomise, tiny_eva_model, tiny_open_clip_model, tiny_timm_model
from steerlens.zoo.registry import adapter_for

pytestmark = pytest.mark.usefixtures("open_clip", "timm")

TOLERANCE = 1e-5
D, SIZE = 16, 16
SIZES: Mapping[str, Any] = {
    "hidden_size": D,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 8,
}
WIDE: Mapping[str, Any] = {**SIZES, "intermediate_size": 2 * D, "hidden_act": "gelu"}

Weights = dict[str, Tensor]


def joined(weights: Weights, prefix: str, names: tuple[str, ...], kind: str) -> Tensor:
    return torch.cat([weights[f"{prefix}.{name}.{kind}"] for name in names])


def renamed(weights: Weights, prefix: str, parts: Mapping[str, str], own: str) -> Weights:
    """The weights and biases below a prefix under other names, the prefix stripped."""
    return {
        f"{own}{new}.{kind}": weights[f"{prefix}.{old}.{kind}"]
        for old, new in parts.items()
        for kind in ("weight", "bias")
        if f"{prefix}.{old}.{kind}" in weights
    }


QKV = ("q_proj", "k_proj", "v_proj")


@cache
def clip_model() -> Any:
    return randomise(CLIPVisionModelWithProjection(CLIPVisionConfig(**WIDE, projection_dim=12)), seed=1)


def clip_in_open_clip() -> Any:
    w = clip_model().state_dict()
    embeddings = "vision_model.embeddings"
    weights: Weights = {
        "class_embedding": w[f"{embeddings}.class_embedding"],
        "conv1.weight": w[f"{embeddings}.patch_embedding.weight"],
        "positional_embedding": w[f"{embeddings}.position_embedding.weight"],
        "proj": w["visual_projection.weight"].T,
        **renamed(w, "vision_model", {"pre_layrnorm": "ln_pre", "post_layernorm": "ln_post"}, ""),
    }
    parts = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    for layer in range(3):
        native, own = f"vision_model.encoder.layers.{layer}", f"transformer.resblocks.{layer}."
        weights |= renamed(w, native, parts, own)
        for kind in ("weight", "bias"):
            weights[f"{own}attn.in_proj_{kind}"] = joined(w, f"{native}.self_attn", QKV, kind)
    model = tiny_open_clip_model()
    model.load_state_dict(weights)
    return model


def blocks_in_timm(w: Weights, path: str, parts: Mapping[str, str], attention: str) -> Weights:
    weights: Weights = {}
    for layer in range(3):
        native, own = f"{path}.{layer}", f"blocks.{layer}."
        weights |= renamed(w, native, parts, own)
        for kind in ("weight", "bias"):
            weights[f"{own}attn.qkv.{kind}"] = joined(w, f"{native}.{attention}", QKV, kind)
    return weights


def in_timm(weights: Weights, **options: Any) -> Any:
    model = tiny_timm_model(mlp_ratio=2.0, **options)
    model.load_state_dict(weights)
    return model


def layer_norm(eps: float) -> Any:
    return partial(torch.nn.LayerNorm, eps=eps)


def clip_in_timm() -> Any:
    """timm has CLIP as a classifier: the projection is its head, and the embedding is what that reads."""
    w = clip_model().state_dict()
    embeddings = "vision_model.embeddings"
    parts = {
        "layer_norm1": "norm1",
        "layer_norm2": "norm2",
        "self_attn.out_proj": "attn.proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    weights = {
        "cls_token": w[f"{embeddings}.class_embedding"].view(1, 1, D),
        "pos_embed": w[f"{embeddings}.position_embedding.weight"][None],
        "patch_embed.proj.weight": w[f"{embeddings}.patch_embedding.weight"],
        "head.weight": w["visual_projection.weight"],
        "head.bias": torch.zeros(12),
        **renamed(w, "vision_model", {"pre_layrnorm": "norm_pre", "post_layernorm": "norm"}, ""),
        **blocks_in_timm(w, "vision_model.encoder.layers", parts, "self_attn"),
    }
    return in_timm(weights, pre_norm=True, num_classes=12, norm_layer=layer_norm(1e-5))


@cache
def vit_model() -> Any:
    return randomise(ViTForImageClassification(ViTConfig(**WIDE, num_labels=5)), seed=2)


def vit_in_timm() -> Any:
    w = vit_model().state_dict()
    embeddings = "vit.embeddings"
    parts = {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.o_proj": "attn.proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    weights = {
        "cls_token": w[f"{embeddings}.cls_token"],
        "pos_embed": w[f"{embeddings}.position_embeddings"],
        "patch_embed.proj.weight": w[f"{embeddings}.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": w[f"{embeddings}.patch_embeddings.projection.bias"],
        "head.weight": w["classifier.weight"],
        "head.bias": w["classifier.bias"],
        **renamed(w, "vit", {"layernorm": "norm"}, ""),
        **blocks_in_timm(w, "vit.layers", parts, "attention"),
    }
    return in_timm(weights, norm_layer=layer_norm(1e-12))


@cache
def dino_model() -> Any:
    config = Dinov2WithRegistersConfig(**SIZES, mlp_ratio=2, num_register_tokens=3)
    return randomise(Dinov2WithRegistersModel(config), seed=3)


def dino_in_timm() -> Any:
    """timm adds positions to patches alone; that of the class token has to be in the token itself."""
    w = dino_model().state_dict()
    positions = w["embeddings.position_embeddings"]
    parts = {
        "norm1": "norm1",
        "norm2": "norm2",
        "attention.o_proj": "attn.proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    weights = {
        "cls_token": w["embeddings.cls_token"] + positions[:, :1],
        "reg_token": w["embeddings.register_tokens"],
        "pos_embed": positions[:, 1:],
        "patch_embed.proj.weight": w["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": w["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": w["layernorm.weight"],
        "norm.bias": w["layernorm.bias"],
        **blocks_in_timm(w, "encoder.layer", parts, "attention"),
    }
    for layer in range(3):
        for number in (1, 2):
            weights[f"blocks.{layer}.ls{number}.gamma"] = w[f"encoder.layer.{layer}.layer_scale{number}.lambda1"]
    return in_timm(
        weights, reg_tokens=3, no_embed_class=True, init_values=1.0, num_classes=0, norm_layer=layer_norm(1e-6)
    )


@cache
def siglip_model() -> Any:
    return randomise(SiglipVisionModel(SiglipVisionConfig(**WIDE)), seed=4)


def siglip_in_timm() -> Any:
    w = siglip_model().state_dict()
    parts = {
        "layer_norm1": "norm1",
        "layer_norm2": "norm2",
        "self_attn.out_proj": "attn.proj",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }
    pool = {"attention.out_proj": "proj", "layernorm": "norm", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    weights = {
        "pos_embed": w["embeddings.position_embedding.weight"][None],
        "patch_embed.proj.weight": w["embeddings.patch_embedding.weight"],
        "patch_embed.proj.bias": w["embeddings.patch_embedding.bias"],
        "norm.weight": w["post_layernorm.weight"],
        "norm.bias": w["post_layernorm.bias"],
        "attn_pool.latent": w["head.probe"],
        **renamed(w, "head", pool, "attn_pool."),
        **blocks_in_timm(w, "encoder.layers", parts, "self_attn"),
    }
    for kind in ("weight", "bias"):
        weights[f"attn_pool.q.{kind}"] = w[f"head.attention.in_proj_{kind}"][:D]
        weights[f"attn_pool.kv.{kind}"] = w[f"head.attention.in_proj_{kind}"][D:]
    return in_timm(weights, class_token=False, global_pool="map", num_classes=0, norm_layer=layer_norm(1e-6))


@cache
def dinov3_model() -> Any:
    config = DINOv3ViTConfig(
        **SIZES, intermediate_size=2 * D, num_register_tokens=2, use_gated_mlp=True, hidden_act="silu"
    )
    return randomise(DINOv3ViTModel(config), seed=6)


def dinov3_in_timm() -> Any:
    """timm's class Eva has one bias for queries and one for values, apart from the fused weight."""
    w = dinov3_model().state_dict()
    parts = {
        "norm1": "norm1",
        "norm2": "norm2",
        "attention.o_proj": "attn.proj",
        "mlp.gate_proj": "mlp.fc1_g",
        "mlp.up_proj": "mlp.fc1_x",
        "mlp.down_proj": "mlp.fc2",
    }
    weights: Weights = {
        "cls_token": w["embeddings.cls_token"],
        "reg_token": w["embeddings.register_tokens"],
        "patch_embed.proj.weight": w["embeddings.patch_embeddings.weight"],
        "patch_embed.proj.bias": w["embeddings.patch_embeddings.bias"],
        "norm.weight": w["norm.weight"],
        "norm.bias": w["norm.bias"],
    }
    for layer in range(3):
        native, own = f"model.layer.{layer}", f"blocks.{layer}."
        weights |= renamed(w, native, parts, own)
        weights[f"{own}attn.qkv.weight"] = joined(w, f"{native}.attention", QKV, "weight")
        for name in ("q", "v"):
            weights[f"{own}attn.{name}_bias"] = w[f"{native}.attention.{name}_proj.bias"]
        for number in (1, 2):
            weights[f"{own}gamma_{number}"] = w[f"{native}.layer_scale{number}.lambda1"]
    options = {**EVA_VARIANTS["DINOv3 plus"], "depth": 3, "num_classes": 0, "norm_layer": layer_norm(1e-5)}
    model = tiny_eva_model(**options)
    model.load_state_dict(weights)
    return model


# name: (the model in transformers, the same in another library)
CASES: dict[str, Any] = {
    "DINOv3 in timm": (dinov3_model, lambda: TimmEncoder(dinov3_in_timm(), tiny_processor(SIZE))),
    "CLIP in open_clip": (clip_model, lambda: OpenCLIPEncoder(clip_in_open_clip(), tiny_processor(SIZE))),
    "CLIP in timm": (clip_model, lambda: TimmEncoder(clip_in_timm(), tiny_processor(SIZE))),
    "ViT in timm": (vit_model, lambda: TimmEncoder(vit_in_timm(), tiny_processor(SIZE))),
    "DINOv2 with registers in timm": (dino_model, lambda: TimmEncoder(dino_in_timm(), tiny_processor(SIZE))),
    "SigLIP in timm": (siglip_model, lambda: TimmEncoder(siglip_in_timm(), tiny_processor(SIZE))),
}


@cache
def pair(case: str) -> tuple[Encoder, Encoder]:
    make, other = CASES[case]
    model = make()
    return adapter_for(model)(model, tiny_processor(SIZE)), other()


def pixels() -> Tensor:
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))


def embedding(case: str, own: Encoder, other: Encoder, got: Tensor) -> Tensor:
    """The other library's embedding in terms of transformers' own."""
    if case != "CLIP in timm":
        return got
    with torch.no_grad():
        return other.model.head(got)  # type: ignore[attr-defined]


@pytest.mark.parametrize("case", CASES)
def test_every_site_holds_the_same_in_both_libraries(case: str) -> None:
    own, other = pair(case)
    kinds: tuple[SiteKind, ...] = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
    sites = [Site("embed"), *(site for kind in kinds for site in layer_sites(kind, 3)), *all_heads(3, 2)]
    assert own.spec.n_tokens == other.spec.n_tokens
    assert own.spec.first_patch == other.spec.first_patch
    assert own.spec.readout_tokens == other.spec.readout_tokens
    wanted, got = own.record(pixels(), sites), other.record(pixels(), sites)
    for site in sites:
        assert relative(got[site], wanted[site]) <= TOLERANCE, site


@pytest.mark.parametrize("case", CASES)
def test_traces_are_the_same_in_both_libraries(case: str) -> None:
    own, other = pair(case)
    wanted, got = own.trace(pixels(), attention=True), other.trace(pixels(), attention=True)
    for name in ("embed", "head_values", "attn_out", "mlp_out", "resid_post", "attn_bias", "attention", "values"):
        assert relative(getattr(got, name), getattr(wanted, name)) <= TOLERANCE, name
    assert relative(embedding(case, own, other, got.embedding), wanted.embedding) <= TOLERANCE
    for mine, theirs in zip(wanted.out_weights, got.out_weights, strict=True):
        assert relative(theirs, mine) <= TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_steering_and_interventions_do_the_same_in_both_libraries(case: str) -> None:
    own, other = pair(case)
    heads = all_heads(3, 2)
    lens, theirs = SteeringLens(own, Strength("rho", 2.0)), SteeringLens(other, Strength("rho", 2.0))
    wanted, got = lens.embeddings(own.trace(pixels()), heads), theirs.embeddings(other.trace(pixels()), heads)
    assert relative(embedding(case, own, other, got), wanted) <= TOLERANCE
    for site in (Site("head", 1, 1), Site("attn_out", 0), Site("mlp_out", 2), Site("resid_mid", 1)):
        for change in (Zero(site), Scale(site, factor=3.0)):
            wanted, got = own.embed(pixels(), [change]), other.embed(pixels(), [change])
            assert relative(embedding(case, own, other, got), wanted) <= TOLERANCE, change


def test_the_readout_of_any_residual_is_the_same_in_both_libraries() -> None:
    for case in CASES:
        own, other = pair(case)
        count = len(range(own.spec.n_tokens) if own.spec.readout_tokens is None else own.spec.readout_tokens)
        residual = torch.randn(4, count, D, generator=torch.Generator().manual_seed(6))
        with torch.no_grad():
            got = embedding(case, own, other, other.readout(residual))
            assert relative(got, own.readout(residual)) <= TOLERANCE, case


def test_the_pil_backend_is_pinned_where_torchvision_is_there_too() -> None:
    """transformers changes the backend of image processors, and with it their rounding, where it finds torchvision."""
    from PIL import Image
    from transformers import CLIPImageProcessor
    from transformers.utils import is_torchvision_available

    from steerlens.loading import load

    assert is_torchvision_available()
    assert "Pil" not in CLIPImageProcessor.__name__  # What the name stands for, unless it is pinned.
    processor: Any = load("emoji").encoder.processor  # type: ignore[attr-defined]
    assert type(processor).__name__ == "CLIPImageProcessorPil"
    picture = Image.effect_noise((301, 173), 90).convert("RGB")
    other = CLIPImageProcessor(**{k: v for k, v in processor.to_dict().items() if "type" not in k})
    ours = processor(images=[picture], return_tensors="pt")["pixel_values"]
    theirs = other(images=[picture], return_tensors="pt")["pixel_values"]
    assert not torch.equal(ours, theirs)
