"""Opening folders laid out like timm's and open_clip's hub repositories: safetensors only, every weight placed.

Torch is imported when a folder is opened, so that recognising a folder is quick.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.errors import ModelError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

OPEN_CLIP_FILES = ("open_clip_config.json", "open_clip_model.safetensors")
"""File names of config and weights in open_clip's repositories."""

_OPEN_CLIP_CONFIG, _OPEN_CLIP_WEIGHTS = OPEN_CLIP_FILES


def is_timm_folder(folder: Path) -> bool:
    """True if a folder's `config.json` is timm's: it names an `architecture`, and no model of transformers."""
    if not (folder / "config.json").is_file():
        return False
    config = _config(folder / "config.json")
    return "architecture" in config and not config.get("architectures") and "model_type" not in config


def is_open_clip_folder(folder: Path) -> bool:
    """True if a folder contains a model of open_clip and none of transformers; many repositories contain both."""
    return (folder / _OPEN_CLIP_CONFIG).is_file() and not (folder / "config.json").is_file()


def open_timm_folder(
    folder: Path, device: "torch.device", dtype: "torch.dtype | None"
) -> "tuple[nn.Module, Callable[..., Any]]":
    """Opens a folder with `config.json` and `model.safetensors`: the model, and the transform of its config.

    Args:
        folder: folder of the model.
        device: device of the model.
        dtype: precision; None for float32, or half precision if it is large.

    Raises:
        ModelError: if timm is not installed or cannot build it, or weights are missing, unexpected or not finite.
    """
    return _open(_TIMM, folder, device, dtype)


def open_open_clip_folder(
    folder: Path, device: "torch.device", dtype: "torch.dtype | None"
) -> "tuple[nn.Module, Callable[..., Any]]":
    """Opens a folder with `open_clip_config.json` and `open_clip_model.safetensors`: vision tower and transform.

    The text side is not built. Arguments as in `open_timm_folder`.

    Raises:
        ModelError: if open_clip is not installed or cannot build it, or weights are missing, unexpected or not finite.
    """
    if not (folder / _OPEN_CLIP_WEIGHTS).is_file():
        raise ModelError(f"image_encoder: {folder} contains no {_OPEN_CLIP_WEIGHTS}; pickled weights are not read.")
    return _open(_OPEN_CLIP, folder, device, dtype)


@dataclass(frozen=True)
class _Library:
    """Recipe for opening the folders of a library.

    Attributes:
        name: name of its module.
        extra: the extra of steerlens that installs it.
        config: name of the config's file.
        build: builds the model without its weights, and the transform, from the module, the config and the folder.
        files: returns the weight files of a folder.
        prefix: prefix of the names of the weights that belong to the model; the others are left out.
    """

    name: str
    extra: str
    config: str
    build: Callable[[Any, Mapping[str, Any], Path], tuple[Any, Any]]
    files: Callable[[Path], tuple[Path, ...]]
    prefix: str = ""


def _open(
    library: _Library, folder: Path, device: "torch.device", dtype: "torch.dtype | None"
) -> "tuple[nn.Module, Callable[..., Any]]":
    from steerlens.devices import encoder_dtype
    from steerlens.storage import check_before_building, check_library_folder, no_larger_than

    try:
        module = import_module(library.name)
    except ImportError as error:
        raise ModelError(
            f"{library.name} is needed for this model and is not installed: pip install steerlens[{library.extra}]"
        ) from error
    check_library_folder(folder, "image_encoder")
    config, files = _config(folder / library.config), library.files(folder)
    weights = {name: tensor for file in files for name, tensor in _load(file).items()}
    own = {name.removeprefix(library.prefix): weights[name] for name in weights if name.startswith(library.prefix)}
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    check_before_building(lambda: library.build(module, config, folder)[0], shapes, "image_encoder", folder)
    try:
        with no_larger_than(shapes, "image_encoder", folder):
            model, transform = library.build(module, config, folder)
    except ModelError:
        raise
    except Exception as error:  # the constructors of some hundred models raise exceptions of any kind
        what = config.get("architecture", f"the model of {folder}")
        raise ModelError(f"image_encoder: {library.name} cannot build {what}: {_reason(error)}") from error
    _fill(model, own, folder)
    parameters = sum(tensor.numel() for tensor in own.values())
    return model.to(device, encoder_dtype(device, parameters, dtype)).eval(), transform


_ELSEWHERE = frozenset({"checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"})
"""Arguments by which timm reads other files than those of the folder."""

_NO_NAME = re.compile(r"[^\w.-]")
"""Characters that no architecture's name contains: `hf-hub:owner/name` and `local-dir:/folder` are other places."""

_SIZED_MODULES = ("vision_transformer", "eva")
"""Modules of timm whose models are built for one size of pictures, `img_size`."""


def _plain(name: Any) -> Any:
    if not isinstance(name, str) or _NO_NAME.search(name):
        raise ModelError(f"image_encoder: {name!r} is no name of an architecture; other places are not followed.")
    return name


def _build_timm(timm: Any, config: Mapping[str, Any], folder: Path) -> tuple[Any, Any]:
    _plain(config["architecture"])
    arguments: Mapping[str, Any] = config.get("model_args") or {}
    if elsewhere := sorted(_ELSEWHERE & set(arguments)):
        raise ModelError(f"image_encoder: {elsewhere[0]} in model_args names other files, which are not read.")
    # timm reads its config, whose layout has changed over the years; only the weights are read here.
    early = "pretrained_cfg" not in config
    given = {"global_pool": arguments.get("global_pool", None if early else config.get("global_pool"))}
    if early and "input_size" in config and timm.models.is_model_in_modules(config["architecture"], _SIZED_MODULES):
        # An early config does not say that the size is fixed: timm would build for its default size.
        given["img_size"] = arguments.get("img_size", tuple(config["input_size"][-2:]))
    model = timm.create_model(f"local-dir:{folder}", pretrained=False, **given)
    return model, timm.data.create_transform(**timm.data.resolve_model_data_config(model))


def _build_open_clip(open_clip: Any, config: Mapping[str, Any], _: Path) -> tuple[Any, Any]:
    model: Mapping[str, Any] = config["model_cfg"]
    # All weights are in the folder: a tower of timm must not fetch its own first.
    vision = {**model["vision_cfg"], "timm_model_pretrained": False}
    if vision.get("timm_model_name"):
        _plain(vision["timm_model_name"])
    kind = open_clip.model.CLIPVisionCfg(**vision)
    tower = open_clip.model._build_vision_tower(model["embed_dim"], kind, bool(model.get("quick_gelu")))
    if kind.timm_model_name and hasattr(tower, "set_input_size"):
        tower.set_input_size(kind.image_size)
    preprocessing = {key: value for key, value in (config.get("preprocess_cfg") or {}).items() if value is not None}
    cfg = open_clip.transform.PreprocessCfg(**{"size": kind.image_size, **preprocessing})
    return tower, open_clip.transform.image_transform_v2(cfg, is_train=False)


def _timm_files(folder: Path) -> tuple[Path, ...]:
    from steerlens.storage import read_tensors

    return read_tensors(folder, "image_encoder").files


def _open_clip_files(folder: Path) -> tuple[Path, ...]:
    return (folder / _OPEN_CLIP_WEIGHTS,)


_TIMM = _Library("timm", "timm", "config.json", _build_timm, _timm_files)
_OPEN_CLIP = _Library("open_clip", "open-clip", _OPEN_CLIP_CONFIG, _build_open_clip, _open_clip_files, prefix="visual.")


def _config(file: Path) -> Mapping[str, Any]:
    from steerlens.storage import read_json

    return read_json(file, "image_encoder")


def _load(file: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError

    from steerlens.storage import load_tensors

    try:
        return load_tensors(file)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"image_encoder: {file} cannot be read: {error}.") from None


def _fill(model: "nn.Module", weights: "Mapping[str, Tensor]", folder: Path) -> None:
    from steerlens.storage import check_finite

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
