"""Tiny encoders of every family of transformers, of the real classes, with random weights, biases and norms.

They have 2 layers of 2 heads, width 32, and see 16 x 16 pixels in patches of 8 x 8: 4 patches.
"""

import importlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from steerlens.encoders.dinov3_processor import DINOv3Processor
from steerlens.storage import quiet_libraries
from steerlens.testing.tiny import tiny_processor
from steerlens.testing.tiny_vit import randomise
from steerlens.zoo import adapter_for

SIZE = 16
"""Height and width of these models' inputs, in pixels."""

_SIZES: Mapping[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIZE,
    "patch_size": 8,
}
_WIDE: Mapping[str, Any] = {**_SIZES, "intermediate_size": 48}
_CLASSES: Mapping[int, str] = {0: "tench", 1: "goldfish", 2: "shark", 3: "ray", 4: "cock"}
_LABELS: Mapping[str, Any] = {
    "num_labels": len(_CLASSES),
    "id2label": _CLASSES,
    "label2id": {name: index for index, name in _CLASSES.items()},
}

_TEXT: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 99,
    "max_position_embeddings": 16,
}


def _simple(kind: str, config: str, **options: Any) -> nn.Module:
    return getattr(transformers, kind)(getattr(transformers, config)(**options))


def _whole(kind: str, config: str, vision: Mapping[str, Any], **options: Any) -> nn.Module:
    """A model with a text side, which the tests of encoders do not use."""
    return _simple(kind, config, vision_config=dict(vision), text_config=dict(_TEXT), **options)


def _vlm(family: str, tower: str, kind: str = "ForConditionalGeneration") -> nn.Module:
    """A vision-language model, whose language model the tests of encoders do not use."""
    text = {**_TEXT, "model_type": "llama"}
    # One block more than others have: some language models read the last but one.
    vision = {**_WIDE, "model_type": tower, "num_hidden_layers": 3}
    if tower == "siglip_vision_model":
        vision["vision_use_head"] = False
    return _simple(f"{family}{kind}", f"{family}Config", vision_config=vision, text_config=text, image_token_index=98)


_QWEN: Mapping[str, Any] = {
    "hidden_size": 32,
    "depth": 2,
    "num_heads": 2,
    "intermediate_size": 48,
    "patch_size": 8,
    "out_hidden_size": 32,
}


def _qwen(family: str, kind: str = "ForConditionalGeneration", **options: Any) -> nn.Module:
    """A Qwen-VL, whose language model the tests of encoders do not use."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    text = {**_TEXT, "num_key_value_heads": 2, "rope_parameters": rope}
    return _simple(f"{family}{kind}", f"{family}Config", vision_config={**_QWEN, **options}, text_config=text)


def _qwen_tower(family: str, kind: str, **options: Any) -> nn.Module:
    module = importlib.import_module(f"transformers.models.{family.lower()}.modeling_{family.lower()}")
    config = importlib.import_module(f"transformers.models.{family.lower()}.configuration_{family.lower()}")
    return getattr(module, kind)(getattr(config, f"{family}VisionConfig")(**{**_QWEN, **options}))


_PATCHES: Mapping[str, Any] = {key: value for key, value in _WIDE.items() if key != "image_size"} | {"num_patches": 4}

MODELS: Mapping[str, Callable[[], nn.Module]] = {
    "CLIPVisionModelWithProjection": partial(
        _simple, "CLIPVisionModelWithProjection", "CLIPVisionConfig", **_WIDE, projection_dim=12
    ),
    "CLIPVisionModel": partial(_simple, "CLIPVisionModel", "CLIPVisionConfig", **_WIDE),
    "CLIPModel": partial(_whole, "CLIPModel", "CLIPConfig", _WIDE, projection_dim=12),
    "MetaClip2VisionModelWithProjection": partial(
        _simple, "MetaClip2VisionModelWithProjection", "MetaClip2VisionConfig", **_WIDE, projection_dim=12
    ),
    "MetaClip2Model": partial(_whole, "MetaClip2Model", "MetaClip2Config", _WIDE, projection_dim=12),
    "SiglipVisionModel": partial(_simple, "SiglipVisionModel", "SiglipVisionConfig", **_WIDE),
    "SiglipModel": partial(_whole, "SiglipModel", "SiglipConfig", _WIDE),
    "SiglipForImageClassification": partial(_whole, "SiglipForImageClassification", "SiglipConfig", _WIDE, **_LABELS),
    "Siglip2VisionModel": partial(_simple, "Siglip2VisionModel", "Siglip2VisionConfig", **_PATCHES),
    "Siglip2Model": partial(_whole, "Siglip2Model", "Siglip2Config", _PATCHES),
    "Siglip2ForImageClassification": partial(
        _whole, "Siglip2ForImageClassification", "Siglip2Config", _PATCHES, **_LABELS
    ),
    "ViTModel": partial(_simple, "ViTModel", "ViTConfig", **_WIDE),
    "ViTForImageClassification": partial(_simple, "ViTForImageClassification", "ViTConfig", **_WIDE, **_LABELS),
    "DeiTModel": partial(_simple, "DeiTModel", "DeiTConfig", **_WIDE),
    "DeiTForImageClassification": partial(_simple, "DeiTForImageClassification", "DeiTConfig", **_WIDE, **_LABELS),
    "DeiTForImageClassificationWithTeacher": partial(
        _simple, "DeiTForImageClassificationWithTeacher", "DeiTConfig", **_WIDE, **_LABELS
    ),
    "ViTMAEModel": partial(_simple, "ViTMAEModel", "ViTMAEConfig", **_WIDE),
    "ViTMAEForPreTraining": partial(
        _simple,
        "ViTMAEForPreTraining",
        "ViTMAEConfig",
        **_WIDE,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    ),
    "Dinov2Model": partial(_simple, "Dinov2Model", "Dinov2Config", **_SIZES, mlp_ratio=2),
    "Dinov2ForImageClassification": partial(
        _simple, "Dinov2ForImageClassification", "Dinov2Config", **_SIZES, **_LABELS, mlp_ratio=2, use_swiglu_ffn=True
    ),
    "Dinov2WithRegistersModel": partial(
        _simple, "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", **_SIZES, num_register_tokens=3
    ),
    "Dinov2WithRegistersForImageClassification": partial(
        _simple,
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        **_SIZES,
        **_LABELS,
        num_register_tokens=3,
    ),
    "DINOv3ViTModel": partial(
        _simple, "DINOv3ViTModel", "DINOv3ViTConfig", **_WIDE, num_register_tokens=2, use_gated_mlp=True
    ),
    "Tipsv2VisionModel": partial(_simple, "Tipsv2VisionModel", "Tipsv2VisionConfig", **_SIZES, mlp_ratio=2),
    "Tipsv2Model": partial(
        _whole,
        "Tipsv2Model",
        "Tipsv2Config",
        {**_SIZES, "mlp_ratio": 2, "use_swiglu_ffn": True, "num_register_tokens": 2},
    ),
    "LlavaForConditionalGeneration": partial(_vlm, "Llava", "clip_vision_model"),
    "LlavaNextModel": partial(_vlm, "LlavaNext", "clip_vision_model", "Model"),
    "LlavaOnevisionForConditionalGeneration": partial(_vlm, "LlavaOnevision", "siglip_vision_model"),
    "Qwen2_5_VLForConditionalGeneration": partial(_qwen, "Qwen2_5_VL", window_size=32, fullatt_block_indexes=[1]),
    "Qwen2_5_VisionTransformerPretrainedModel": partial(
        _qwen_tower, "Qwen2_5_VL", "Qwen2_5_VisionTransformerPretrainedModel", window_size=32, fullatt_block_indexes=[]
    ),
    "Qwen3VLModel": partial(_qwen, "Qwen3VL", kind="Model", num_position_embeddings=16, deepstack_visual_indexes=[0]),
    "Aimv2VisionModel": partial(_simple, "Aimv2VisionModel", "Aimv2VisionConfig", **_WIDE),
    "Aimv2Model": partial(_whole, "Aimv2Model", "Aimv2Config", _WIDE, projection_dim=12),
}
"""Builders of a tiny model of each native class that has an adapter, by the name of the class."""


def tiny_model(kind: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny native model with random weights.

    Args:
        kind: name of its class, in `MODELS`.
        seed: seed of the weights.
        dtype: precision of the weights.
    """
    with torch.random.fork_rng(devices=[]), quiet_libraries():
        model = MODELS[kind]()
    return randomise(model, seed).to(dtype)


def tiny_family_processor(kind: str) -> Any:
    """The image processor of a tiny model: the real class of its family."""
    plain: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": SIZE, "width": SIZE}}
    if kind.startswith("Siglip2"):
        return transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=5)
    if kind.startswith("LlavaNext"):
        size = {"shortest_edge": SIZE}
        return transformers.LlavaNextImageProcessorPil(
            size=size,
            crop_size={"height": SIZE, "width": SIZE},
            image_grid_pinpoints=[[SIZE, 2 * SIZE], [2 * SIZE, SIZE]],
        )
    if kind.startswith("Siglip"):
        return transformers.SiglipImageProcessorPil(**plain)
    if kind.startswith("Qwen"):
        # Six by six patches: windows of four by four, those at the edge smaller.
        size = {"shortest_edge": 48 * 48, "longest_edge": 48 * 48}
        return transformers.Qwen2VLImageProcessorPil(patch_size=8, size=size)
    if kind.startswith("Tipsv2"):
        return transformers.ViTImageProcessorPil(size=plain["size"], do_normalize=False)
    if kind.startswith(("ViT", "DeiT")):
        deit = kind.startswith("DeiT")
        family: Any = transformers.DeiTImageProcessorPil if deit else transformers.ViTImageProcessorPil
        return family(**plain, do_center_crop=False) if deit else family(**plain)
    if kind.startswith("Dinov2"):
        return transformers.BitImageProcessorPil(size={"shortest_edge": 20}, crop_size={"height": SIZE, "width": SIZE})
    if kind.startswith("DINOv3"):
        return DINOv3Processor((SIZE, SIZE), (0.5,) * 3, (0.5,) * 3)
    return tiny_processor(SIZE)


def tiny_family_encoder(kind: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """An encoder over a tiny model; see `tiny_model`."""
    model = tiny_model(kind, seed, dtype)
    return adapter_for(model)(model, tiny_family_processor(kind), name=f"tiny-{kind}")


def save_tiny_model(kind: str, folder: Path, seed: int = 0) -> Path:
    """Saves a tiny model and its processor in the layout of the hub, and returns the folder."""
    with quiet_libraries():
        tiny_model(kind, seed).save_pretrained(folder)
    return save_tiny_processor(kind, folder)


def save_tiny_processor(kind: str, folder: Path) -> Path:
    """Saves the image processor of a tiny model in the layout of the hub, and returns the folder."""
    processor = tiny_family_processor(kind)
    if not isinstance(processor, DINOv3Processor):
        processor.save_pretrained(folder)
        return folder
    config = {
        "image_processor_type": "DINOv3ViTImageProcessorFast",
        "do_center_crop": None,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": processor.mean,
        "image_std": processor.std,
        "rescale_factor": processor.factor,
        "resample": 2,
        "size": {"height": SIZE, "width": SIZE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder
