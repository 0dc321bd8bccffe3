"""Tiny Vision Transformers of timm and open_clip with random weights, of the real classes, biases and norms included.

The libraries are optional: callers of these functions must have them installed.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import nn
from transformers import CLIPImageProcessorPil

from steerlens.encoders.open_clip import OpenCLIPEncoder, OpenCLIPTimmEncoder
from steerlens.encoders.timm import TimmEncoder
from steerlens.testing.tiny import tiny_processor

SIZE = 16
"""Height and width of these models' inputs, in pixels; patches have 8 x 8 pixels by default."""


TIMM_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "token": {},
    "avg with fc_norm": {"global_pool": "avg"},
    "avg over prefix too": {"global_pool": "avg", "pool_include_prefix": True, "reg_tokens": 2},
    "avg without class token": {"global_pool": "avg", "class_token": False},
    "avg, norm before pooling": {"global_pool": "avg", "fc_norm": False},
    "max": {"global_pool": "max"},
    "avgmax, norm before pooling": {"global_pool": "avgmax", "fc_norm": False},
    "attention pooling": {"global_pool": "map", "reg_tokens": 1},
    "patch refinement": {"global_pool": "prr"},
    "LayerScale": {"init_values": 0.5},
    "registers": {"reg_tokens": 3, "no_embed_class": True},
    "norm_pre": {"pre_norm": True},
    "qk norm": {"qk_norm": True},
    "RMSNorm": {"norm_layer": "rmsnorm"},
    "no norm": {"final_norm": False},
    "no biases": {"qkv_bias": False, "proj_bias": False},
    "no classifier": {"num_classes": 0},
    "dropout of all kinds": {"drop_rate": 0.5, "patch_drop_rate": 0.5, "drop_path_rate": 0.5, "attn_drop_rate": 0.5},
    "not square": {"img_size": (16, 24)},
}
"""Options of timm's class that an adapter must get right, by what they are about."""

_ROTARY: Mapping[str, Any] = {"use_rot_pos_emb": True, "ref_feat_shape": (2, 2)}
_PERCEPTION: Mapping[str, Any] = {
    **_ROTARY,
    "attn_type": "rope",
    "use_pre_transformer_norm": True,
    "rope_grid_offset": 1.0,
    "rope_grid_indexing": "xy",
}
_DINOV3: Mapping[str, Any] = {
    "use_abs_pos_emb": False,
    "use_rot_pos_emb": True,
    "rope_type": "dinov3",
    "rope_temperature": 100.0,
    "rope_rotate_half": True,
    "dynamic_img_size": True,
    "num_reg_tokens": 2,
    "init_values": 0.5,
    "use_fc_norm": False,
}

EVA_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "EVA": {},
    "EVA-02": {**_ROTARY, "swiglu_mlp": True, "qkv_fused": False, "scale_mlp": True},
    "EVA-CLIP": {
        **_ROTARY,
        "swiglu_mlp": True,
        "qkv_fused": False,
        "scale_mlp": True,
        "scale_attn_inner": True,
        "global_pool": "token",
    },
    "Perception Encoder core": {
        **_PERCEPTION,
        "global_pool": "map",
        "attn_pool_num_heads": 2,
        "attn_pool_mlp_ratio": 2.0,
    },
    "Perception Encoder core, no class token": {**_PERCEPTION, "global_pool": "map", "class_token": False},
    "Perception Encoder lang": {
        **_PERCEPTION,
        "init_values": 0.1,
        "use_post_transformer_norm": False,
        "use_fc_norm": False,
        "num_classes": 0,
    },
    "Perception Encoder spatial": {**_PERCEPTION, "use_post_transformer_norm": False, "use_fc_norm": False},
    "DINOv3": {**_DINOV3, "qkv_bias": False},
    "DINOv3, class token": {**_DINOV3, "qkv_bias": False, "global_pool": "token"},
    "DINOv3 plus": {**_DINOV3, "swiglu_mlp": True, "swiglu_align_to": 8, "global_pool": "token"},
    "EUPE": {**_DINOV3, "global_pool": "token"},
    "fixed rotary, registers": {**_ROTARY, "num_reg_tokens": 1, "no_embed_class": True, "attn_type": "rope"},
    "mixed rotary": {"use_rot_pos_emb": True, "rope_type": "mixed", "use_abs_pos_emb": False, "global_pool": "token"},
    "separate bias": {"qkv_bias": True, "qk_norm": True, "attn_type": "rope", "scale_attn_inner": True},
    "RMSNorm of heads": {"attn_type": "rope", "scale_attn_inner": True, "norm_layer": "rmsnorm"},
    "shared keys": {
        **_DINOV3,
        "attn_type": "rope",
        "qkv_fused": False,
        "num_kv_heads": 1,
        "qk_norm": True,
        "attn_only_layer_scale": True,
        "global_pool": "token",
        "norm_layer": "rmsnorm",
    },
    "dropout of all kinds": {
        "drop_rate": 0.5,
        "pos_drop_rate": 0.5,
        "patch_drop_rate": 0.5,
        "proj_drop_rate": 0.5,
        "attn_drop_rate": 0.5,
        "drop_path_rate": 0.5,
    },
    "not square": {**_DINOV3, "img_size": (16, 24)},
}
"""Options of timm's class `Eva`, by the models that have them or by what they are about."""

EVA_TOWERS = ("EVA", "EVA-CLIP", "Perception Encoder core")
"""Those that open_clip has as vision towers."""

OPEN_CLIP_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "class token": {},
    "odd number of heads": {"heads": 1},
    "mean of patches": {"pool_type": "avg"},
    "norm after pooling": {"pool_type": "avg", "final_ln_after_pool": True},
    "attention pooling": {"attentional_pool": True},
    "mean of attention pooling": {"attentional_pool": True, "pool_type": "avg", "output_tokens": True},
    "LayerScale": {"ls_init_value": 0.5},
    "no norm before": {"no_ln_pre": True},
    "patch dropout": {"patch_dropout": 0.5},
    "fixed positions": {"pos_embed_type": "sin_cos_2d"},
    "not square": {"image_size": (16, 24)},
}
"""Options of open_clip's class that an adapter must get right, by what they are about."""

TOWER_VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "mean, linear": {},
    "mean, MLP": {"proj": "mlp"},
    "class token, classifier as projection": {"pool": "token", "proj": ""},
    "class token, no projection": {"pool": "token", "proj": "none"},
    "LayerScale and registers": {"model_name": "test_vit2"},
    "attention pooling": {"model_name": "test_vit3", "pool": "map"},
}
"""Options of open_clip's towers of timm that an adapter must get right, by what they are about."""


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Gives every weight, bias, norm and token of a model a random value that matters; returns the model.

    Weights are scaled so that no part dominates; zeros and ones would hide a missing part.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1 and "token" not in name and "embed" not in name.rpartition(".")[2]:
                parameter.copy_(noise * (parameter.numel() / parameter.shape[0]) ** -0.5)
            else:
                scales = ("norm" in name or ".ln" in f".{name}") and name.endswith("weight")
                parameter.copy_(0.3 * noise + (1.0 if scales or name.endswith("gamma") else 0.0))
    return model.eval()


def tiny_timm_model(seed: int = 0, **options: Any) -> Any:
    """A `VisionTransformer` of timm: 3 layers of 2 heads, width 16, 5 tokens, 5 classes.

    Args:
        seed: of the weights.
        options: of the class (`global_pool`, `reg_tokens`, `init_values`, `pre_norm`, ...), in place of these sizes.
    """
    sizes = {"img_size": SIZE, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 5}
    vit = import_module("timm.models.vision_transformer").VisionTransformer(**{**sizes, **options})
    return randomise(vit, seed)


def tiny_timm_encoder(seed: int = 0, *, dtype: torch.dtype = torch.float32, **options: Any) -> TimmEncoder:
    """An encoder with a tiny `VisionTransformer` of timm; see `tiny_timm_model`."""
    model = tiny_timm_model(seed, **options).to(dtype)
    return TimmEncoder(model, _processor(*model.patch_embed.img_size), name=f"tiny-timm-{seed}")


def tiny_eva_model(seed: int = 0, **options: Any) -> Any:
    """An `Eva` of timm: 2 layers of 2 heads, width 16, 4 patches, 5 classes.

    Args:
        seed: of the weights.
        options: of the class, in place of these sizes; `norm_layer` may be a name.
    """
    sizes = {"img_size": SIZE, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
    chosen = {**sizes, "mlp_ratio": 2.0, **options}
    if isinstance(chosen.get("norm_layer"), str):
        chosen["norm_layer"] = import_module("timm.layers").get_norm_layer(chosen["norm_layer"])
    return randomise(import_module("timm.models.eva").Eva(**chosen), seed)


def tiny_eva_encoder(seed: int = 0, *, dtype: torch.dtype = torch.float32, **options: Any) -> TimmEncoder:
    """An encoder with a tiny `Eva` of timm; see `tiny_eva_model`."""
    model = tiny_eva_model(seed, **options).to(dtype)
    return TimmEncoder(model, _processor(*model.patch_embed.img_size), name=f"tiny-eva-{seed}")


def tiny_open_clip_model(seed: int = 0, **options: Any) -> Any:
    """A `VisionTransformer` of open_clip: 3 layers of 2 heads, width 16, 5 tokens, embeddings of 12 numbers.

    Args:
        seed: of the weights.
        options: of the class (`pool_type`, `ls_init_value`, `attentional_pool`, ...), in place of these sizes.
    """
    sizes = {
        "image_size": SIZE,
        "patch_size": 8,
        "width": 16,
        "layers": 3,
        "heads": 2,
        "mlp_ratio": 2.0,
        "output_dim": 12,
        "attn_pooler_heads": 2,
        "attn_pooler_queries": 3,
    }
    visual = import_module("open_clip.transformer").VisionTransformer(**{**sizes, **options})
    return randomise(visual, seed)


def tiny_open_clip_encoder(seed: int = 0, *, dtype: torch.dtype = torch.float32, **options: Any) -> OpenCLIPEncoder:
    """An encoder with a tiny vision tower of open_clip; see `tiny_open_clip_model`."""
    model = tiny_open_clip_model(seed, **options).to(dtype)
    return OpenCLIPEncoder(model, _processor(*model.image_size), name=f"tiny-open-clip-{seed}")


def tiny_open_clip_timm_encoder(
    seed: int = 0, *, dtype: torch.dtype = torch.float32, model_name: str = "test_vit", **options: Any
) -> OpenCLIPTimmEncoder:
    """An encoder with a timm tower within open_clip, by default of timm's own test model (patches of 16 x 16 pixels).

    Args:
        seed: of the weights.
        dtype: precision of the weights.
        model_name: a model of timm's registry, which is made small in pixels only.
        options: of open_clip's `TimmModel` (`pool`, `proj`, `proj_bias`).
    """
    tower = import_module("open_clip.timm_model").TimmModel(model_name, embed_dim=12, image_size=32, **options)
    tower.set_input_size(32)
    return OpenCLIPTimmEncoder(randomise(tower, seed).to(dtype), tiny_processor(32), name=f"tiny-tower-{seed}")


def tiny_open_clip_eva_model(seed: int = 0, **options: Any) -> Any:
    """A timm tower within open_clip around a tiny `Eva`, whose classifier is the projection; see `tiny_eva_model`."""
    pool = options.get("global_pool", "avg")
    tower = import_module("open_clip.timm_model").TimmModel(
        "test_vit", embed_dim=12, image_size=SIZE, pool=pool, proj=""
    )
    # open_clip builds its trunks by name, and timm has no name for one of this size.
    tower.trunk = tiny_eva_model(seed, **{**options, "num_classes": 12})
    return tower.eval()


def tiny_open_clip_eva_encoder(
    seed: int = 0, *, dtype: torch.dtype = torch.float32, **options: Any
) -> OpenCLIPTimmEncoder:
    """An encoder with a timm tower within open_clip; see `tiny_open_clip_eva_model`."""
    tower = tiny_open_clip_eva_model(seed, **options).to(dtype)
    return OpenCLIPTimmEncoder(tower, tiny_processor(SIZE), name=f"tiny-eva-tower-{seed}")


def _processor(height: int, width: int) -> CLIPImageProcessorPil:
    if height == width:
        return tiny_processor(height)
    half = [0.5, 0.5, 0.5]
    size = {"height": height, "width": width}
    return CLIPImageProcessorPil(size=size, do_center_crop=False, image_mean=half, image_std=half)
