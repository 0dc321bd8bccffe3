"""Models in memory: checks and hashes of their weights and settings, and a quick check for changes since loading.

Weights alone do not decide a model's numbers: an epsilon, an activation function and a hook do too. All of them are
hashed, so that two models with the same numbers in their tensors are told apart.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from steerlens.errors import ModelError

_SAMPLED = 4096
"""Sampled numbers per tensor, to detect changes that its version counter misses (`.data` edits)."""


def weights_hash(owner: Any) -> str:
    """Computes the SHA-256 of all weights of an adapter, and of the settings of its modules.

    Weights are parameters, persistent buffers and tensors of the adapter itself: names, types, shapes and values.
    Settings are the classes of modules, their plain attributes (an epsilon, a scale), hooks, and configs of the adapter
    (a scheduler's).

    Args:
        owner: an encoder or a decoder, whose attributes are the modules, or a module. Its own `identity`, if it has
            that attribute, counts too.
    """
    digest = hashlib.sha256()
    for name, tensor in _tensors(owner):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    for line in _settings(owner):
        digest.update(f"{line}\n".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def weights_state(owner: Any, *, moves: bool = False) -> str:
    """Computes a quick fingerprint of a model in memory, to detect changes; it is valid only in this process.

    It covers settings as `weights_hash` does, every tensor's version counter, which counts changes in place, its
    address, and a sample of its values.

    Args:
        owner: as in `weights_hash`.
        moves: True for weights that change their place without changing (offloading): address and counter are left out.
    """
    digest = hashlib.sha256()
    for name, tensor in _tensors(owner):
        flat = tensor.detach().flatten()
        sample = tensor_bytes(flat[:: max(1, flat.numel() // _SAMPLED)])
        version = 0 if tensor.is_inference() else tensor._version  # pyright: ignore[reportPrivateUsage]
        place = "" if moves else f"{version} {tensor.data_ptr()}"
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {place}\n".encode() + sample)
    for line in _settings(owner):
        digest.update(f"{line}\n".encode("utf-8", "backslashreplace"))
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
    for attribute, module in _modules(owner):
        for name, tensor in sorted(module.state_dict(keep_vars=True).items()):
            if isinstance(tensor, Tensor) and not tensor.is_meta:
                yield f"{attribute}.{name}", tensor
    if not isinstance(owner, nn.Module):
        for attribute, value in sorted(_attributes(owner).items()):
            if isinstance(value, Tensor) and not value.is_meta and not attribute.startswith("_"):
                yield attribute, value


def _modules(owner: Any) -> Iterator[tuple[str, nn.Module]]:
    """Yields the modules of an adapter by name, each once; an attribute may be a pipeline that has some."""
    attributes: dict[str, Any] = {"": owner} if isinstance(owner, nn.Module) else _attributes(owner)
    yielded = set[int]()
    for attribute, value in sorted(attributes.items()):
        inside = None if isinstance(value, nn.Module) else getattr(value, "components", None)
        parts = cast(Mapping[str, Any], inside) if isinstance(inside, Mapping) else {"": value}
        for name, part in sorted(parts.items()):
            if isinstance(part, nn.Module) and id(part) not in yielded:
                yielded.add(id(part))
                yield ".".join(filter(None, (attribute, name))), part


_INDECISIVE = frozenset({"training", "gradient_checkpointing", "grad_checkpointing"})
"""Attributes of modules that are put into one state for every pass."""

_DEPTH = 6
"""Levels of nested values that are looked at."""


def _settings(owner: Any) -> Iterator[str]:
    """Yields what decides the numbers of an adapter besides its tensors, a line for each module or config."""
    for attribute, module in _modules(owner):
        for path, part in module.named_modules():
            yield f"{attribute}.{path} {_class_name(part)} {_settings_of(part)}"
    if not isinstance(owner, nn.Module):
        for attribute, value in sorted(_attributes(owner).items()):
            if isinstance(value, Mapping):
                yield f"{attribute} {_plain(value)}"
        if isinstance(own := getattr(owner, "identity", None), str):
            yield f"identity {own}"


def _attributes(owner: Any) -> dict[str, Any]:
    return getattr(owner, "__dict__", {})


def _settings_of(module: nn.Module) -> str:
    own = {name: _plain(value) for name, value in vars(module).items() if name[0] != "_" and name not in _INDECISIVE}
    hooks = [hook for name in ("_forward_pre_hooks", "_forward_hooks") for hook in getattr(module, name).values()]
    texts = [f"{name}={text}" for name, text in sorted(own.items()) if text]
    return " ".join([*texts, *(f"hook {_function(hook)}" for hook in hooks)])


def _plain(value: Any, depth: int = _DEPTH) -> str:
    """Returns a value as a text that is equal for equal values in any process; empty if there is none."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype):
        return repr(value)
    if not depth:
        return ""
    if isinstance(value, Mapping):
        entries = cast(Mapping[Any, Any], value).items()
        return repr(sorted((str(key), _plain(inner, depth - 1)) for key, inner in entries))
    if isinstance(value, tuple | list):
        return repr([_plain(inner, depth - 1) for inner in cast(tuple[Any, ...], value)])
    if isinstance(value, set | frozenset):
        return repr(sorted(_plain(inner, depth - 1) for inner in cast(set[Any], value)))
    return "" if isinstance(value, nn.Module | type) or not callable(value) else _function(value, depth - 1)


def _function(function: Callable[..., Any], depth: int = _DEPTH) -> str:
    """Describes a function: its name, its code, and plain values and tensors that it holds."""
    if isinstance(function, partial):
        held = _plain((function.args, function.keywords), depth)
        return f"{_function(cast(Callable[..., Any], function.func), depth)} {held}"
    plain = getattr(function, "__func__", function)  # of a method
    code, name = getattr(plain, "__code__", None), getattr(plain, "__qualname__", _class_name(plain))
    if code is None:
        return f"{getattr(plain, '__module__', '')}.{name}"
    cells = [_content(cell) for cell in plain.__closure__ or ()]
    held = [_held(value, depth) for value in (*cells, *(plain.__defaults__ or ()), *code.co_consts)]
    digest = hashlib.sha256(code.co_code + repr((code.co_names, held)).encode("utf-8", "backslashreplace"))
    return f"{plain.__module__}.{name} {digest.hexdigest()[:16]}"


def _held(value: Any, depth: int) -> str:
    if isinstance(value, Tensor):
        return "" if value.is_meta else hashlib.sha256(tensor_bytes(value)).hexdigest()
    return _plain(value, depth - 1) if depth else ""


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _class_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def tensor_bytes(tensor: Tensor) -> bytes:
    """Returns the bytes of a tensor's values in order, for hashes; strides and device do not count."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
