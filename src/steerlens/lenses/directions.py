"""Directions of the residual stream that a user brings: probes, neurons, features."""

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from steerlens.errors import ModelError, UsageError
from steerlens.sites import Site


def load_directions(path: Path, width: int | None = None) -> dict[str, Float[Tensor, "D"]]:
    """Directions of the residual stream from a safetensors file: each tensor one direction, named by its key.

    A tensor (D,) is one direction; (K,D) is K of them, named `key.0` to `key.K-1`.

    Args:
        path: the file.
        width: D of the encoder; None to take what the file holds.

    Raises:
        UsageError: if there is no such file, a tensor has another width or shape, or two have one name.
        ModelError: if the file is no safetensors file, or holds values that are not finite.
    """
    try:
        tensors = load_tensors(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{path} is no safetensors file ({error}).") from error
    directions: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim not in (1, 2):
            raise UsageError(
                f"{path}: {name} has shape {tuple(tensor.shape)}; a direction is (width,), several (K,width)."
            )
        rows = {name: tensor} if tensor.ndim == 1 else {f"{name}.{index}": row for index, row in enumerate(tensor)}
        for key, row in rows.items():
            if width is not None and row.shape != (width,):
                raise UsageError(f"{path}: {key} has shape {tuple(row.shape)}; this encoder's width is {width}.")
            if not torch.isfinite(row).all() or not row.any():
                raise ModelError(f"{path}: {key} is zero or not finite, and so is no direction.")
            site = Site("vector", name=key.replace("/", "."))
            if site.name in directions:
                raise UsageError(f"{path}: two directions would both be called {site}; rename one.")
            directions[site.name] = row.float()
    if not directions:
        raise UsageError(f"{path} holds no tensor.")
    return directions
