"""Checks of what callers give to an encoder: pictures, inputs of the native model, interventions."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from steerlens.encoders.base import EncoderSpec
from steerlens.errors import UsageError
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
