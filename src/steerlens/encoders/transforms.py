"""Pictures through the preprocessing that belongs to a model: a transform of torchvision, or an image processor.

timm and open_clip hand out torchvision transforms, which take one PIL picture at a time; transformers has processors.
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
    """Shared by the adapters of those libraries: pictures through a transform, of the one size that the model sees.

    Attributes:
        processor: the transform, or an image processor of transformers.
    """

    processor: Any

    def native_preprocess(self, images: Sequence[Image.Image]) -> Inputs:
        """Pictures through the model's own transform, (B,3,height,width)."""
        pixels = apply_transform(self.processor, images, self.spec.image_size)
        return {"pixel_values": pixels.to(self.device, self.dtype)}

    def before_pooling(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N T D"]:
        """The readout tokens in their places: native pooling skips those before the patches, and finds empty ones."""
        return functional.pad(residual.to(self.dtype), (0, 0, self.readout_tokens[0], 0))


def apply_transform(
    transform: Any, images: Sequence[Image.Image], size: tuple[int, int]
) -> Float[Tensor, "B 3 height width"]:
    """Pictures as a model wants them.

    Args:
        transform: takes a picture and gives a tensor (3,height,width), or an image processor of transformers.
        images: the pictures.
        size: height and width that the model sees.

    Raises:
        ModelError: if the transform gives tensors of another shape.
    """
    if _is_processor(transform):
        pixels: Tensor = transform(images=list(images), return_tensors="pt")["pixel_values"]
    else:
        pixels = torch.stack([transform(upright_rgb(image)) for image in images])
    if pixels.shape[1:] != (3, *size):
        raise ModelError(
            f"the transform makes pictures of shape {tuple(pixels.shape[1:])}, and the model sees {(3, *size)}: "
            "give the transform that belongs to the model."
        )
    return pixels


def crops(transform: Any) -> bool:
    """Whether a transform says of itself that it cuts off parts of some pictures."""
    geometry = read_geometry(transform, (1, 1))
    return geometry is not None and geometry.crops


def _is_processor(transform: Any) -> bool:
    from transformers.image_processing_base import ImageProcessingMixin

    return isinstance(transform, ImageProcessingMixin)
