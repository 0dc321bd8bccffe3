"""Opening folders of timm and open_clip as their hub repositories hold them: safetensors only, nothing left over."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steerlens.devices import encoder_dtype
from steerlens.errors import ModelError
from steerlens.storage.weights import check_finite, read_json, read_tensors

OPEN_CLIP_FILES = ("open_clip_config.json", "open_clip_model.safetensors")
"""Config and weights of a model of open_clip, as its repositories hold them."""

_OPEN_CLIP_CONFIG, _OPEN_CLIP_WEIGHTS = OPEN_CLIP_FILES


def is_timm_folder(folder: Path) -> bool:
    """Whether a folder holds a model of timm: its `config.json` names an `architecture`, and none of transformers."""
    if not (folder / "config.json").is_file():
        return False
    config = read_json(folder / "config.json", "image_encoder")
    return "architecture" in config and not config.get("architectures") and "model_type" not in config


def is_open_clip_folder(folder: Path) -> bool:
    """Whether a folder holds a model of open_clip and none of transformers, which many repositories have both."""
    return (folder / _OPEN_CLIP_CONFIG).is_file() and not (folder / "config.json").is_file()


def open_timm_folder(folder: Path, device: torch.device, dtype: torch.dtype | None) -> tuple[nn.Module, Any]:
    """The model of a folder and the transform that its config tells.

    Args:
        folder: with `config.json` and `model.safetensors`.
        device: where to put it.
        dtype: precision; None for float32, or half precision if it is large.

    Raises:
        ModelError: if timm is not installed or cannot build it, or weights are missing, unexpected or not finite.
    """
    timm = _library("timm", "timm")
    config, found = read_json(folder / "config.json", "image_encoder"), read_tensors(folder, "image_encoder")
    options = {key: config[key] for key in ("num_classes", "global_pool") if key in config}
    try:
        model: nn.Module = timm.create_model(
            config["architecture"],
            pretrained=False,
            pretrained_cfg=dict(config.get("pretrained_cfg") or {}),
            **{**options, **(config.get("model_args") or {})},
        )
    except Exception as error:  # whatever the constructors of some hundred models raise
        raise ModelError(f"image_encoder: timm cannot build {config['architecture']}: {_reason(error)}") from error
    weights = {name: tensor for file in found.files for name, tensor in _load(file).items()}
    _fill(model, weights, folder)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    return model.to(device, encoder_dtype(device, found.parameters, dtype)).eval(), transform


def open_open_clip_folder(folder: Path, device: torch.device, dtype: torch.dtype | None) -> tuple[nn.Module, Any]:
    """The vision tower of a folder's model and the transform that its config tells; the text side is not built.

    Args:
        folder: with `open_clip_config.json` and `open_clip_model.safetensors`.
        device: where to put it.
        dtype: precision; None for float32, or half precision if it is large.

    Raises:
        ModelError: if open_clip is not installed or cannot build it, or weights are missing, unexpected or not finite.
    """
    library = _library("open_clip", "open-clip")
    config = read_json(folder / _OPEN_CLIP_CONFIG, "image_encoder")
    if not (folder / _OPEN_CLIP_WEIGHTS).is_file():
        raise ModelError(f"image_encoder: {folder} holds no {_OPEN_CLIP_WEIGHTS}; pickled weights are not read.")
    try:
        given: Mapping[str, Any] = config["model_cfg"]
        # The weights are all in the folder; those that a tower of timm would fetch first are not wanted.
        vision = {**given["vision_cfg"], "timm_model_pretrained": False}
        kind = library.model.CLIPVisionCfg(**vision)
        tower: Any = library.model._build_vision_tower(given["embed_dim"], kind, bool(given.get("quick_gelu")))
        if kind.timm_model_name and hasattr(tower, "set_input_size"):
            tower.set_input_size(kind.image_size)
        preprocessing = {key: value for key, value in (config.get("preprocess_cfg") or {}).items() if value is not None}
        cfg = library.transform.PreprocessCfg(**{"size": kind.image_size, **preprocessing})
        transform = library.transform.image_transform_v2(cfg, is_train=False)
    except Exception as error:  # whatever the constructors of all towers raise
        raise ModelError(f"image_encoder: open_clip cannot build the model of {folder}: {_reason(error)}") from error
    prefix = "visual."
    weights = _load(folder / _OPEN_CLIP_WEIGHTS)
    own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    _fill(tower, own, folder)
    parameters = sum(tensor.numel() for tensor in own.values())
    return tower.to(device, encoder_dtype(device, parameters, dtype)).eval(), transform


def _library(name: str, extra: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ModelError(
            f"{name} is needed for this model and is not installed: pip install steerlens[{extra}]"
        ) from error


def _load(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"image_encoder: {file} cannot be read: {error}.") from None


def _fill(model: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    try:
        missing, unexpected = model.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:
        raise ModelError(f"image_encoder: the weights in {folder} do not fit its config: {_reason(error)}") from error
    for names, what in ((missing, "lack"), (unexpected, "hold, without a place for it in the model,")):
        if names:
            raise ModelError(f"image_encoder: the weights in {folder} {what} {', '.join(sorted(names)[:3])}.")
    check_finite(model, "image_encoder")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
