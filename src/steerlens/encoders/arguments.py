"""Checks of what callers give to an encoder: pictures, inputs of the native model, interventions."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from steerlens.encoders.base import EncoderSpec
from steerlens.errors import ModelError, UsageError
from steerlens.interventions import Intervention


def check_images(images: Any) -> None:
    """Checks that there is at least one picture, and that all are PIL images.

    Raises:
        UsageError: if not.
    """
    single = isinstance(images, Image.Image)
    if single or not isinstance(images, Sequence) or not images or not _all_are(images, Image.Image):
        raise UsageError(
            "preprocess takes a list of PIL images, at least one: for example "
            "preprocess([steerlens.load_picture('photo.png').image])."
        )


def pixel_values(inputs: Any, name: str) -> Tensor:
    """Returns the pixel values among the inputs of a native model, or the tensor that stands for them alone.

    Args:
        inputs: tensors by name, or the pixel values.
        name: the model's name in messages.

    Raises:
        UsageError: if there are none, or they are no tensor in floating point.
    """
    pixels = inputs.get("pixel_values") if isinstance(inputs, Mapping) else inputs
    if isinstance(pixels, Tensor) and pixels.is_floating_point() and pixels.ndim and len(pixels):
        return pixels
    kind = f"a {type(inputs).__name__}"
    if isinstance(pixels, Tensor):
        kind = f"a tensor of shape {tuple(pixels.shape)} and type {str(pixels.dtype).removeprefix('torch.')}"
    raise UsageError(
        f"{name} takes what its `preprocess` returns, or normalised pixel values in floating point, not {kind}."
    )


_LARGEST_CONTRAST = 300
"""Largest difference of white and black after preprocessing: 255 without scaling, and some units with it."""


def check_preprocessing(preprocess: Callable[[Sequence[Image.Image]], Mapping[str, Tensor]], name: str) -> None:
    """Checks that preprocessing tells white from black, in numbers that a model can have been trained on.

    Args:
        preprocess: turns pictures into the inputs of a native model.
        name: the model's name in messages.

    Raises:
        ModelError: if its numbers are not finite, the same for both, or hundreds of standard deviations apart.
    """
    try:
        inputs = preprocess([Image.new("RGB", (64, 64), colour) for colour in ("black", "white")])
        black, white = inputs["pixel_values"].detach().float()
    except Exception:
        return  # some take pictures of other shapes, or pack them; failures are reported when it is used
    contrast = float((white - black).abs().max())
    if not contrast < math.inf:
        raise ModelError(f"{name}: its image processor gives values that are not finite; check its mean and std.")
    if contrast == 0:
        raise ModelError(f"{name}: its image processor gives the same values for black and for white pictures.")
    if contrast > _LARGEST_CONTRAST:
        raise ModelError(
            f"{name}: its image processor puts black and white {contrast:.0f} apart: it divides values of 0 to 255 by "
            "a standard deviation of values in [0,1]. Scale them first (do_rescale: true)."
        )


def check_interventions(interventions: Any, spec: EncoderSpec) -> None:
    """Checks that interventions are a list, at sites and tokens that the model has.

    Raises:
        UsageError: if not.
    """
    if not isinstance(interventions, Sequence) or not _all_are(interventions, Intervention):
        raise UsageError(
            "interventions are given as a list, such as [Zero('L3H4'), Scale('mlp_out.2', factor=2.0)], not as "
            f"{interventions!r:.80}."
        )
    for intervention in interventions:
        intervention.site.check(spec.n_layers, spec.n_heads)
        if not all(-spec.n_tokens <= token < spec.n_tokens for token in intervention.tokens or ()):
            raise UsageError(f"{intervention.site}: the model has {spec.n_tokens} tokens a picture.")


def _all_are(values: Sequence[Any], kind: type) -> bool:
    return all(isinstance(value, kind) for value in values)
