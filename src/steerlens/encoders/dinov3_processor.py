"""DINOv3's image processor: that of transformers needs torchvision, so its steps are here in torch alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from steerlens.encoders.geometry import Geometry, stretched
from steerlens.encoders.pretrained import sides
from steerlens.errors import ModelError
from steerlens.images import upright_rgb
from steerlens.storage import read_json


@dataclass(frozen=True)
class DINOv3Processor:
    """DINOv3's image processor without torchvision: rescales, then resizes with antialiasing, then normalises.

    Attributes:
        size: height and width in pixels; pictures are squashed to it.
        mean: mean of each channel.
        std: standard deviation of each channel.
        factor: factor of the 8-bit values.
        mode: interpolation, `bilinear` or `bicubic`.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    factor: float = 1 / 255
    mode: str = "bilinear"

    @classmethod
    def from_folder(cls, folder: Path) -> "DINOv3Processor | None":
        """Opens the processor of a folder; None if it has another kind, or none.

        Raises:
            ModelError: as `from_config`.
        """
        try:
            config = read_json(folder / "preprocessor_config.json", "image_processor")
        except ModelError:
            return None
        named = str(config.get("image_processor_type", ""))
        return cls.from_config(config) if named.removesuffix("Fast") == "DINOv3ViTImageProcessor" else None

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DINOv3Processor":
        """Builds the processor that a `preprocessor_config.json` describes.

        Raises:
            ModelError: if it requests a step that DINOv3 does not take.
        """
        size = config.get("size") or {}
        steps = all(config.get(step) is not False for step in ("do_resize", "do_rescale", "do_normalize"))
        mode = {None: "bilinear", 2: "bilinear", 3: "bicubic"}.get(config.get("resample"))
        if not steps or config.get("do_center_crop") or mode is None or set(size) != {"height", "width"}:
            raise ModelError(
                "image_processor: its config asks for other steps than DINOv3's: rescaling, resizing to a height and "
                "width (resample 2 or 3), normalising."
            )
        return cls(
            sides((size["height"], size["width"])),
            tuple(config.get("image_mean") or (0.485, 0.456, 0.406)),
            tuple(config.get("image_std") or (0.229, 0.224, 0.225)),
            float(config.get("rescale_factor") or 1 / 255),
            mode,
        )

    @property
    def geometry(self) -> Geometry:
        """Geometry that squashes pictures of any shape to one size."""
        return stretched(self.size)

    def __call__(self, images: Sequence[Image.Image], return_tensors: str = "pt") -> dict[str, Tensor]:
        """Turns pictures into the model's inputs, `pixel_values` (B,3,height,width)."""
        rescaled: list[Tensor] = []
        for image in images:
            pixels = torch.from_numpy(np.array(upright_rgb(image))).permute(2, 0, 1)[None].float() * self.factor
            if pixels.shape[-2:] != self.size:
                pixels = functional.interpolate(pixels, self.size, mode=self.mode, align_corners=False, antialias=True)
            rescaled.append(pixels)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return {"pixel_values": (torch.cat(rescaled) - mean) / std}
