"""Vision towers inside vision-language models of transformers: taken out of the whole model, or of its folder."""

import re
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn

from steerlens.devices import encoder_dtype
from steerlens.encoders.towers import TowerEncoder
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


class VLMTowerEncoder(TowerEncoder):
    """The vision tower of a vision-language model; projector and language model are left out.

    Args:
        model: the whole model, or its tower.
        processor: its image processor.
        name: its name in reports.
        config: config of the whole model; by default the model's own.
    """

    whole: ClassVar[VLM]
    """The vision-language models that have this tower."""
    model_types: ClassVar[Mapping[str, str]] = {}
    reads_processor = True
    # Without a final norm, the mean over width counts.
    centred = False

    def __init__(
        self, model: nn.Module, processor: Any, name: str = "", *, config: Mapping[str, Any] | None = None
    ) -> None:
        tower = self.whole.tower(model)
        settings: Mapping[str, Any] = cast(Any, model).config.to_dict() if config is None else config
        self.prepare(tower, settings)
        self._no_norm = nn.Identity()
        super().__init__(tower, processor, name or str(settings.get("_name_or_path") or ""))

    @classmethod
    def accepts(cls, model: object) -> bool:
        """True for a whole model of these families, with or without its language head."""
        return cls.whole.accepts(model)

    @property
    def final_norm(self) -> nn.Module:
        """None: the language model gets tokens as they are."""
        return self._no_norm

    @classmethod
    def loading(cls, config: Mapping[str, Any], weights: Mapping[str, tuple[int, ...]]) -> None:
        """None: a folder is opened by `from_folder`, without the language model."""
        return

    @classmethod
    def opens(cls, folder: Path) -> bool:
        """True if a folder contains a whole model of these families."""
        return cls.whole.is_in(folder)

    @classmethod
    def from_folder(
        cls, folder: Path, processor: Any, *, device: torch.device, dtype: torch.dtype | None, name: str = ""
    ) -> Self:
        """Opens the tower in a whole model's folder.

        Args:
            folder: folder of the whole model.
            processor: its image processor.
            device: device of the tower.
            dtype: precision; None for float32, or half precision if it is large.
            name: its name in reports.

        Raises:
            ModelError: if the tower cannot be loaded, or is not known.
        """
        config = cls.whole.config(folder)
        kinds = cls.tower_kinds(config)
        return cls(cls.whole.load_tower(folder, *kinds, device, dtype), processor, name, config=config)

    @classmethod
    @abstractmethod
    def tower_kinds(cls, config: Mapping[str, Any]) -> tuple[str, str]:
        """Returns the names of the tower's class and of its config's class, from the config of the whole model.

        Raises:
            ModelError: if the tower is not known.
        """

    def prepare(self, tower: Any, config: Mapping[str, Any]) -> None:
        """Reads what the config of the whole model says of its tower; by default nothing.

        Raises:
            ModelError: if the tower is not known.
        """
