"""Preprocessing of timm and open_clip models: a transform of torchvision, or an image processor of transformers.

timm and open_clip provide torchvision transforms, which take one PIL picture at a time; transformers has processors.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from steerlens.encoders.base import Inputs
from steerlens.encoders.geometry import read_geometry
from steerlens.encoders.native import NativeEncoder
from steerlens.errors import ModelError
from steerlens.images import upright_rgb


class TransformEncoder(NativeEncoder):
    """Base class of the adapters of those libraries: applies a transform and checks the size of its output.

    Attributes:
        processor: the transform, or an image processor of transformers.
    """

    processor: Any

    def native_preprocess(self, images: Sequence[Image.Image]) -> Inputs:
        """Applies the model's own transform, which gives (B,3,height,width)."""
        pixels = apply_transform(self.processor, images, self.spec.image_size)
        return {"pixel_values": pixels.to(self.device, self.dtype)}

    def before_pooling(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N T D"]:
        """Pads the readout tokens with empty tokens, which native pooling skips, so that each is in its place."""
        return functional.pad(residual.to(self.dtype), (0, 0, self.readout_tokens[0], 0))


def apply_transform(
    transform: Any, images: Sequence[Image.Image], size: tuple[int, int]
) -> Float[Tensor, "B 3 height width"]:
    """Turns pictures into a model's inputs.

    Args:
        transform: a function from a picture to a tensor (3,height,width), or an image processor of transformers.
        images: the pictures.
        size: height and width of the model's input.

    Raises:
        ModelError: if the transform gives tensors of another shape.
    """
    if _is_processor(transform):
        pixels: Tensor = transform(images=list(images), return_tensors="pt")["pixel_values"]
    else:
        pixels = torch.stack([transform(upright_rgb(image)) for image in images])
    if pixels.shape[1:] != (3, *size):
        raise ModelError(
            f"the transform gives pictures of shape {tuple(pixels.shape[1:])}, and the model takes {(3, *size)}: "
            "give the transform that belongs to the model."
        )
    return pixels


def crops(transform: Any) -> bool:
    """True if a transform declares that it crops some pictures."""
    geometry = read_geometry(transform, (1, 1))
    return geometry is not None and geometry.crops


def _is_processor(transform: Any) -> bool:
    from transformers.image_processing_base import ImageProcessingMixin

    return isinstance(transform, ImageProcessingMixin)
