"""Vision-language models of transformers: finding the vision tower in a whole model, and loading it from its folder."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from steerlens.devices import encoder_dtype
from steerlens.errors import ModelError
from steerlens.storage import load_module, read_json, read_tensors


@dataclass(frozen=True)
class VLM:
    """Families of vision-language models of transformers, and where they keep their vision tower.

    Attributes:
        families: prefixes of their classes, `Llava` for `LlavaModel` and `LlavaForConditionalGeneration`.
        attribute: name of the tower.
    """

    families: tuple[str, ...]
    attribute: str

    @property
    def architectures(self) -> tuple[str, ...]:
        """Names of the native classes."""
        return tuple(f"{name}{kind}" for name in self.families for kind in ("Model", "ForConditionalGeneration"))

    def accepts(self, model: object) -> bool:
        """True for a whole model of one of these families."""
        return type(model).__name__ in self.architectures and type(model).__module__.startswith("transformers.")

    def tower(self, model: nn.Module) -> Any:
        """Returns the tower of a whole model; of anything else, the model itself."""
        return getattr(getattr(model, "model", model), self.attribute) if self.accepts(model) else model

    def config(self, folder: Path) -> Mapping[str, Any]:
        """Reads the config of a whole model."""
        return read_json(folder / "config.json", "image_encoder")

    def is_in(self, folder: Path) -> bool:
        """True if a folder contains a whole model of one of these families."""
        if not (folder / "config.json").is_file():
            return False
        return (self.config(folder).get("architectures") or [""])[0] in self.architectures

    def load_tower(self, folder: Path, kind: str, config: str, device: torch.device, dtype: torch.dtype | None) -> Any:
        """Loads the tower of a whole model's folder; the language model is not built.

        Args:
            folder: folder of the whole model.
            kind: class of the tower, in transformers.
            config: class of its config.
            device: device of the tower.
            dtype: precision; None for float32, or half precision if it is large.

        Raises:
            ModelError: if weights of the tower are missing, unexpected or not finite.
        """
        library = import_module("transformers")
        weights = read_tensors(folder, "image_encoder").shapes
        # Older checkpoints and newer ones differ in what comes before the tower, and in CLIP's inner `vision_model`.
        prefix = re.compile(rf"^(model\.)?{self.attribute}\.(vision_model\.)?")
        own = {name: shape for name, shape in weights.items() if prefix.match(name)}
        if not own:
            raise ModelError(f"image_encoder: {folder} holds no weights of a {self.attribute}.")
        sizes = sum(torch.Size(shape).numel() for shape in own.values())
        return load_module(
            getattr(library, kind),
            folder,
            "image_encoder",
            dtype=encoder_dtype(device, sizes, dtype),
            device=device,
            ignore=tuple(weights.keys() - own.keys()),
            arguments={
                "config": getattr(library, config)(**self.config(folder)["vision_config"]),
                "key_mapping": {prefix.pattern: ""},
            },
        )
