"""The DINOv3 Vision Transformer of transformers: `DINOv3ViTModel`.

Rotary position embeddings, registers, LayerScale, and a gated MLP in the larger ones. The embedding is the normalised
class token. The image processor of transformers needs torchvision, so this module implements its steps in torch alone.

References: O. Siméoni et al., "DINOv3", arXiv 2508.10104.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from steerlens.encoders.base import Inputs
from steerlens.encoders.dinov2 import DINOv2Encoder
from steerlens.encoders.geometry import Geometry, stretched
from steerlens.encoders.pretrained import PretrainedEncoder, sides
from steerlens.errors import ModelError
from steerlens.images import upright_rgb
from steerlens.storage import read_json


class DINOv3Encoder(PretrainedEncoder):
    """A DINOv3 Vision Transformer, `DINOv3ViTModel`; the embedding is its normalised class token."""

    family = "dinov3_vit"
    library = "a DINOv3 Vision Transformer of transformers"
    architectures = ("DINOv3ViTModel",)
    model_types: ClassVar[Mapping[str, str]] = {"dinov3_vit": "DINOv3ViTModel"}
    parts = replace(
        DINOv2Encoder.parts,
        block_kind="DINOv3ViTLayer",
        attention_kind="DINOv3ViTAttention",
        scale_kind="DINOv3ViTLayerScale",
        drop_kind="Dinov3ViTDropPath",
    )

    @staticmethod
    def load_processor(folder: Path) -> "DINOv3Processor | None":
        """Loads the image processor in a folder; None for other kinds, which transformers itself can load."""
        try:
            config = read_json(folder / "preprocessor_config.json", "image_processor")
        except ModelError:
            return None
        named = str(config.get("image_processor_type", ""))
        return DINOv3Processor.from_config(config) if named.removesuffix("Fast") == "DINOv3ViTImageProcessor" else None

    @property
    def tower(self) -> Any:
        """The model itself."""
        return self._native

    @property
    def blocks(self) -> Sequence[Any]:
        """The native blocks, in order."""
        return self._native.model.layer

    @property
    def first_patch(self) -> int:
        """The class token comes first, registers second."""
        return 1 + self._native.config.num_register_tokens

    @property
    def fixed_size(self) -> bool:
        """False: positions are computed for pictures of any size."""
        return False

    @property
    def linear_after(self) -> nn.Module | None:
        """The final norm, which nothing follows."""
        return self._native.norm

    def refuse_unknown(self) -> None:
        """Makes sure that the model is built like a DINOv3 Vision Transformer."""
        self.refuse_children("the model", self.model, {"embeddings", "rope_embeddings", "model", "norm"})
        self.refuse_kind("norm", self._native.norm, "LayerNorm")
        self.refuse_children("model", self._native.model, {"layer"})
        self.refuse_blocks("model.layer")

    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """The normalised class token."""
        return self._native.norm(residual[:, 0].to(self.dtype))

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """The normalised class token of one native forward pass."""
        return self._native(**inputs).pooler_output


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
