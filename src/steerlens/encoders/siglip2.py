"""SigLIP 2 vision towers of transformers for pictures of any shape (NaFlex): `Siglip2VisionModel`.

The model takes pictures cut into patches, a mask of the patches that are padding, and the rows and columns of each
picture. An encoder sees pictures of one shape, so that all have the same tokens and none is padding: squares, or with
`for_shape` the grid that the model's processor gives to pictures of a width and a height. It cuts off the padding that
the processor adds after the patches: nothing attends to it, so no number changes. It refuses inputs of other shapes,
whose tokens differ from those that the encoder declares.
SigLIP 2 checkpoints of one fixed size are SigLIP models to transformers.

References: M. Tschannen et al., "SigLIP 2: Multilingual Vision-Language Encoders with Improved Semantic Understanding,
Localization, and Dense Features", arXiv 2502.14786.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from math import isqrt
from typing import ClassVar, Self

import torch
from PIL import Image
from torch import Tensor

from steerlens.encoders.arguments import pixel_values
from steerlens.encoders.base import Inputs
from steerlens.encoders.geometry import Geometry, stretched
from steerlens.encoders.pretrained import Loading
from steerlens.encoders.siglip import TEXT_SIDE, SigLIPEncoder
from steerlens.errors import ModelError, UsageError

_ARGUMENTS = ("pixel_values", "pixel_attention_mask", "spatial_shapes")


class SigLIP2Encoder(SigLIPEncoder):
    """A SigLIP 2 vision tower for patches: `Siglip2VisionModel`, the picture side of a `Siglip2Model`, or a classifier.

    Pictures are squashed to the largest square that has no more patches than the processor allows, or to the shape of
    `for_shape`.
    """

    family = "siglip2"
    library = "a SigLIP 2 vision tower"
    architectures = ("Siglip2VisionModel", "Siglip2Model", "Siglip2ForImageClassification")
    wholes: ClassVar[Mapping[str, Loading]] = {"Siglip2Model": Loading("Siglip2VisionModel", TEXT_SIDE)}
    model_types: ClassVar[Mapping[str, str]] = {"siglip2_vision_model": "Siglip2VisionModel", "siglip2": "Siglip2Model"}
    parts = replace(SigLIPEncoder.parts, block_kind="Siglip2EncoderLayer", attention_kind="Siglip2Attention")
    head_kind = "Siglip2MultiheadAttentionPoolingHead"
    shape: tuple[int, int] | None = None
    """Height and width of the pictures of `for_shape`, in pixels."""

    def picture_size(self) -> tuple[int, int]:
        """The largest square that has no more patches than the processor allows.

        Raises:
            ModelError: if the processor cuts patches of another size than the model reads.
        """
        patch = self.tower.config.patch_size
        if self.processor is not None and self.processor.patch_size != patch:
            raise ModelError(
                f"the image processor cuts patches of {self.processor.patch_size} pixels, and the model reads patches "
                f"of {patch}; give the processor that belongs to the model."
            )
        allowed = self.tower.config.num_patches if self.processor is None else self.processor.max_num_patches
        return isqrt(allowed) * patch, isqrt(allowed) * patch

    def for_shape(self, width: int, height: int) -> Self:
        """Returns an encoder over the same model that sees pictures as its processor does those of one shape.

        Args:
            width: width of the pictures, in any unit.
            height: their height, in the same unit.

        Raises:
            UsageError: if there is no such shape, or the encoder has no processor.
        """
        if width < 1 or height < 1 or self.processor is None:
            raise UsageError(f"{self.spec.name}: there are no pictures of {width} x {height} pixels to see.")
        patch = self.processor.patch_size
        sizes = import_module(type(self.processor).__module__).get_image_size_for_max_num_patches
        down, across = (side // patch for side in sizes(height, width, patch, self.processor.max_num_patches))
        size, other = (down * patch, across * patch), copy.copy(self)
        other.shape = size
        other.spec = replace(
            self.spec, image_size=size, patch_grid=(down, across), n_tokens=down * across, geometry=stretched(size)
        )
        return other

    def geometry(self) -> Geometry:
        """Geometry that squashes pictures of any shape to one square."""
        return stretched(self.spec.image_size)

    def native_preprocess(self, images: Sequence[Image.Image]) -> Inputs:
        """Squashes pictures and cuts them into patches: `pixel_values` (B,T,3 patch patch), mask and shapes."""
        height, width = self.spec.image_size
        squares = [image.resize((width, height), self.processor.resample) for image in images]
        patches = self.processor(images=squares, return_tensors="pt")
        # The processor pads to the largest number of patches, which a square need not have.
        return self.model_inputs({name: patches[name].to(self.device) for name in _ARGUMENTS})

    def misfit(self, inputs: Inputs) -> tuple[int, ...] | None:
        """Returns None: `model_inputs` itself checks inputs that are cut into patches."""
        return None

    def model_inputs(self, inputs: Inputs | Tensor) -> Inputs:
        """Checks patches, completes their mask and shapes, and cuts off padding.

        Raises:
            UsageError: if the pictures have another shape than the encoder declares.
        """
        patches = pixel_values(inputs, self.spec.name)
        given = {"pixel_values": inputs} if isinstance(inputs, Tensor) else dict(inputs)
        grid = torch.tensor(self.spec.patch_grid, device=patches.device)
        given.setdefault("spatial_shapes", grid.expand(len(patches), 2))
        given.setdefault(
            "pixel_attention_mask", torch.ones(patches.shape[:2], dtype=torch.int32, device=patches.device)
        )
        T, mask = self.spec.n_tokens, given["pixel_attention_mask"].bool()
        square = patches.shape[1] >= T and bool((given["spatial_shapes"] == grid).all())
        if not square or not bool(mask[:, :T].all()) or bool(mask[:, T:].any()):
            raise UsageError(
                f"{self.spec.name} takes pictures of {grid[0]} x {grid[1]} patches, as its own `preprocess` makes "
                f"them; these have {patches.shape[1]} patches of another shape, or fewer real ones."
            )
        kept = {"pixel_values": patches[:, :T].to(self.dtype)}
        return {**given, **kept, "pixel_attention_mask": given["pixel_attention_mask"][:, :T]}
