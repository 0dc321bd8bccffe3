"""Parameters in memory: checks and hashes of a model's weights, and a quick check for changes since loading."""

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from steerlens.errors import ModelError

_SAMPLED = 4096
"""Sampled numbers per tensor, to detect changes that its version counter misses (`.data` edits)."""


def weights_hash(owner: Any) -> str:
    """Computes the SHA-256 of all parameters and persistent buffers of an adapter: names, types, shapes and values.

    Args:
        owner: an encoder or a decoder, whose attributes are the modules, or a module.
    """
    digest = hashlib.sha256()
    for name, tensor in _tensors(owner):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_state(owner: Any) -> str:
    """Computes a quick fingerprint of the weights in memory, to detect changes; it is valid only in this process.

    It covers every tensor's version counter, which counts changes in place, its address, and a sample of its values.

    Args:
        owner: as in `weights_hash`.
    """
    digest = hashlib.sha256()
    for name, tensor in _tensors(owner):
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, flat.numel() // _SAMPLED)].cpu().contiguous().view(torch.uint8).numpy().tobytes()
        version = 0 if tensor.is_inference() else tensor._version  # pyright: ignore[reportPrivateUsage]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {version} {tensor.data_ptr()}\n".encode() + sample)
    return digest.hexdigest()


def check_numbers(owner: Any, name: str) -> None:
    """Checks that all weights are plain tensors in memory; a lens reads and multiplies them itself.

    Args:
        owner: as in `weights_hash`.
        name: name of the model, for messages.

    Raises:
        ModelError: if a weight is on the meta device (offloaded, or never loaded), or is a tensor of a library's own
            kind, as quantisation makes them.
    """
    modules: dict[str, Any] = {"": owner} if isinstance(owner, nn.Module) else getattr(owner, "__dict__", {})
    for module in modules.values():
        if not isinstance(module, nn.Module):
            continue
        for place, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_meta:
                raise ModelError(
                    f"{name}: weights of the model are on the meta device, so they hold no numbers (offloaded, or "
                    "never loaded); load the whole model into memory."
                )
            if type(tensor) not in (Tensor, nn.Parameter):
                kind = f"{type(tensor).__module__}.{type(tensor).__qualname__}"
                raise ModelError(
                    f"{name}: its weight {place} is a {kind}, not a plain tensor (quantised, or spread over devices); "
                    "load the model without that."
                )


def _tensors(owner: Any) -> Iterator[tuple[str, Tensor]]:
    modules: dict[str, Any] = {"": owner} if isinstance(owner, nn.Module) else vars(owner)
    for attribute, module in sorted(modules.items()):
        if isinstance(module, nn.Module):
            for name, tensor in sorted(module.state_dict(keep_vars=True).items()):
                if isinstance(tensor, Tensor) and not tensor.is_meta:
                    yield f"{attribute}.{name}", tensor
