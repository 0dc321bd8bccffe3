"""Helpers of all readers of sparse autoencoders: settings of the caller, checked fields of a config, tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor

from steerlens.errors import ModelError, UsageError
from steerlens.saes.activations import Activation
from steerlens.saes.normalisation import Normalisation
from steerlens.saes.sae import EMBEDDING, Space, TrainedOn
from steerlens.sites import Site, SiteLike, as_site

LIMIT = "sae_bytes"
"""Name of the limit on the weights of an autoencoder."""

Place = Site | Literal["embedding"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Given:
    """Settings of an autoencoder given by the caller, which override those of its files.

    Attributes:
        name: its name.
        site: its site, or the image embedding.
        activation: its activation function.
        trained_on: tokens that it was trained on.
        apply_b_dec_to_input: whether `b_dec` is subtracted from the input.
        norm_factor: factor of the input, where training scaled it by the mean norm.
        norm_mean: subtracted from the input before that, (D,).
        space: what it reads at its site, if the text of the site says so.
    """

    name: str
    site: Place | None = None
    activation: Activation | None = None
    trained_on: TrainedOn | None = None
    apply_b_dec_to_input: bool | None = None
    norm_factor: float | None = None
    norm_mean: Tensor | None = None
    space: Space | None = None

    def normalisation(self) -> Normalisation | None:
        """Normalisation of the input, if the caller gives one."""
        if self.norm_factor is None and self.norm_mean is None:
            return None
        factor = 1.0 if self.norm_factor is None else self.norm_factor
        return Normalisation("constant", factor, None if self.norm_mean is None else self.norm_mean.float())

    @property
    def what(self) -> str:
        """The autoencoder in messages."""
        return f"sparse autoencoder {self.name}"

    def place(self, read: Place | None, files: str) -> Place:
        """Returns the caller's site, or else that of the files.

        Raises:
            UsageError: if neither names one.
        """
        place = self.site if self.site is not None else read
        if place is None:
            raise UsageError(
                f"{self.what}: {files} does not say where it reads; name its site (resid_post.8, "
                f"blocks.8.hook_mlp_out, ... or {EMBEDDING})."
            )
        return place


def as_place(site: SiteLike) -> Place:
    """Returns a site or the image embedding, from its text form.

    Raises:
        UsageError: if the text names neither.
    """
    return EMBEDDING if site == EMBEDDING else as_site(site)


def space_of(hook: object) -> Space:
    """Returns what an autoencoder reads at a hook: `hook_z` holds the heads before their output projection."""
    return "head_values" if str(hook or "").strip().endswith("hook_z") else "residual"


def hooked_site(text: str, what: str) -> Place:
    """Returns the site of a hook's name in a config, or the image embedding.

    Raises:
        ModelError: if it is no place that an autoencoder can read here.
    """
    try:
        return as_place(text)
    except UsageError:
        raise ModelError(
            f"{what}: it reads {text!r}, which is not a point of the residual stream, an attention output, an MLP "
            "output or a head, so its features write nothing that can be decoded; if it is one of these, name its site."
        ) from None


def name_of(path: Path) -> str:
    """Returns a name for the autoencoder in a file or folder: the last part of its path, as a site can carry it."""
    name = path.resolve().stem if path.is_file() else path.resolve().name
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "sae"


def field(config: Mapping[str, Any], key: str, kind: type[_T], default: _T | None, what: str) -> _T:
    """Returns a field of a config, checked; `None` counts as absent.

    Raises:
        ModelError: if it is of another type, or absent without a default.
    """
    value = config.get(key)
    if value is None:
        if default is None:
            raise ModelError(f"{what}: its config lacks {key}.")
        return default
    fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise ModelError(f"{what}: {key} of its config is {value!r}, where a {kind.__name__} is expected.")
    return cast(_T, float(value) if kind is float else value)


def take(tensors: Mapping[str, Tensor], name: str, what: str, default: Tensor | None = None) -> Tensor:
    """Returns a floating-point tensor by name, in float32.

    Raises:
        ModelError: if it is missing without a default, or holds whole numbers.
    """
    if name not in tensors:
        if default is not None:
            return default
        raise ModelError(f"{what}: its weights lack {name}; they hold {', '.join(sorted(tensors)) or 'nothing'}.")
    tensor = tensors[name]
    if not tensor.is_floating_point():
        raise ModelError(f"{what}: {name} holds {str(tensor.dtype).removeprefix('torch.')}, no floating-point numbers.")
    return tensor.float()


def state_dict(content: object, what: str) -> dict[str, Tensor]:
    """Returns the tensors of a state dict.

    Raises:
        ModelError: if it is something else.
    """
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{what}: its weights are not a table of tensors by name.")
    named = cast(Mapping[Any, Any], content)
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in named.items()):
        raise ModelError(f"{what}: its weights are not a table of tensors by name.")
    return dict(named)


def refuse_left(tensors: Mapping[str, Tensor], used: set[str], what: str) -> None:
    """Refuses tensors that the reader does not know, which might change what the autoencoder computes.

    Raises:
        ModelError: if there are any.
    """
    if left := sorted(set(tensors) - used):
        raise ModelError(f"{what}: its weights hold {', '.join(left)}, which this reader does not know or use.")


def unknown(what: str, of: str, value: object, known: str) -> ModelError:
    """Makes the error for a setting that the reader does not know."""
    return ModelError(f"{what}: its {of} {value!r} is not known; known are {known}.")


def folded_by_norm(autoencoder: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Folds the norms of decoder rows into the encoder, for activations that are chosen after scaling by these norms.

    Args:
        autoencoder: W_enc, b_enc and W_dec.

    Returns:
        The same, computing the scaled activations, with decoder rows of norm 1.
    """
    W_enc, b_enc, W_dec = autoencoder
    norms = W_dec.norm(dim=-1)
    return W_enc * norms, b_enc * norms, torch.where(norms[:, None] > 0, W_dec / norms[:, None], W_dec)
