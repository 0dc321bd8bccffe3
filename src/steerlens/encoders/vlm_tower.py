"""Base of the adapters for vision towers inside vision-language models of transformers."""

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import nn

from steerlens.encoders.towers import TowerEncoder
from steerlens.encoders.vlm import VLM


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
