"""Models without their weights: full-size architectures on the meta device, from configs in a folder or the package."""

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch

from steerlens.decoders.family import WHOLE
from steerlens.errors import ModelError, UsageError
from steerlens.storage import quiet_libraries, read_json
from steerlens.zoo.cards import Card
from steerlens.zoo.decoder_families import families
from steerlens.zoo.locating import LocatedPair

Configs = Mapping[str, Mapping[str, Any]]
"""The config of each component, by its folder's name (`image_encoder`, `text_encoder`, `unet`, `movq`)."""


def package_configs(card: Card) -> Configs:
    """Reads the full-size configs in the package of a card whose weights are elsewhere.

    Raises:
        UsageError: if the package has no configs for it.
    """
    if card.configs is None:
        raise UsageError(f"the package holds no configs for {card.name}, only its weights do.")
    text = (files("steerlens.zoo") / "configs" / f"{card.configs}.json").read_text(encoding="utf-8")
    return cast(Configs, json.loads(text))


def folder_configs(located: LocatedPair) -> Configs:
    """Reads the configs of a pair on this machine: those of every part of its decoder that has weights."""
    family = families()[located.family]
    names = [name for name, part in family.parts.items() if part.library == "diffusers"]
    folders = {"decoder" if name == WHOLE else name: located.decoder / name for name in names}
    configs = {part: read_json(folder / "config.json", part) for part, folder in folders.items()}
    if family.joint:
        return configs
    encoder = encoder_config(located.encoder)
    if located.processor is not None:  # the encoder sees pictures of the size that its decoder was trained for
        processor = read_json(located.processor / "preprocessor_config.json", "image_processor")
        side = (processor.get("crop_size") or processor.get("size") or {}).get("height")
        encoder = encoder if side is None else {**encoder, "image_size": side}
    return {"image_encoder": encoder, **configs}


def encoder_config(folder: Path) -> Mapping[str, Any]:
    """Reads the config of an encoder in a folder, or in its subfolder `image_encoder`."""
    inner = folder / "image_encoder" if (folder / "image_encoder").is_dir() else folder
    config = read_json(inner / "config.json", "image_encoder")
    if (config.get("architectures") or [""])[0] != "CLIPModel":
        return config
    # A whole CLIP model: only its vision side is loaded.
    size = {"projection_dim": config["projection_dim"]} if "projection_dim" in config else {}
    return {**config.get("vision_config", {}), **size, "architectures": ["CLIPVisionModelWithProjection"]}


def on_meta(component: str, config: Mapping[str, Any]) -> Any:
    """Builds a model from its config on the meta device, with shapes and without numbers.

    Raises:
        ModelError: if the config names no class of transformers or diffusers, or the class refuses it.
    """
    import diffusers
    import transformers

    name = str(config.get("_class_name") or (config.get("architectures") or [""])[0])
    library: Any = diffusers if "_class_name" in config else transformers
    kind = getattr(library, name, None)
    if kind is None:
        raise ModelError(f"{component}: its config names no class of transformers or diffusers ({name or 'none'}).")
    try:
        with quiet_libraries(), torch.device("meta"):
            if library is diffusers:
                return kind.from_config(dict(config)).eval()
            return kind(kind.config_class(**config)).eval()
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(f"{component}: {name} cannot be built from its config: {error}.") from error
