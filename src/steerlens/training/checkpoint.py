"""Checkpoints without pickle: tensors in safetensors, everything else in JSON, written atomically.

A checkpoint is a single `.safetensors` file with the JSON part in its metadata, so that an interruption cannot mix the
tensors of a step with the facts of another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from steerlens.borders import reason
from steerlens.errors import ModelError, StoreError, UsageError
from steerlens.storage import load_tensors, open_tensors, storing


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
    """Saves tensors and JSON facts in a single file, atomically.

    Raises:
        StoreError: if the disk is full, or the place cannot be written; nothing is left behind.
    """
    temporary = path.with_name(path.name + ".tmp")
    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(flat, temporary, metadata={"facts": json.dumps(facts)})
            temporary.replace(path)
    except SafetensorError as error:  # wraps the operating system's error
        raise StoreError(
            f"cannot write {path} ({reason(error)}). What was saved before is kept; free some space and give the same "
            "command with --resume."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Loads the tensors and facts of `save_checkpoint`.

    Raises:
        StoreError: if the file is damaged.
    """
    try:
        with open_tensors(path) as handle:
            facts = json.loads((handle.metadata() or {}).get("facts", "{}"))
            return {name: handle.get_tensor(name) for name in handle.keys()}, facts  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise _damaged(path, error) from error


def stored_shape(path: Path, name: str) -> tuple[int, ...]:
    """Shape of a tensor in a checkpoint, from the header of its file alone.

    Raises:
        StoreError: if the file is damaged, or has no such tensor.
    """
    try:
        with open_tensors(path) as handle:
            return tuple(handle.get_slice(name).get_shape())
    except (SafetensorError, ValueError, OSError) as error:
        raise _damaged(path, error) from error


def stored_facts(path: Path) -> dict[str, Any]:
    """Facts of a checkpoint, from the header of its file alone.

    Raises:
        StoreError: if the file is damaged.
    """
    try:
        with open_tensors(path) as handle:
            return json.loads((handle.metadata() or {}).get("facts", "{}"))
    except (SafetensorError, ValueError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path} is damaged ({reason(error)}). Remove it, and give the same command again, with --resume: its content "
        "is computed again."
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Reads the weights of a finished model.

    Raises:
        ModelError: if the file is damaged.
    """
    try:
        return load_tensors(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read as weights: {reason(error)}.") from error


def start_from(model: nn.Module, weights: Path) -> None:
    """Loads the weights of a finished model into a model of the same architecture.

    Raises:
        UsageError: if there is no such file, or it is of a model of other sizes.
        ModelError: if it is damaged.
    """
    if not weights.is_file():
        raise UsageError(f"there are no weights to continue from: {weights} is missing.")
    try:
        model.load_state_dict(read_weights(weights))
    except RuntimeError as error:
        raise UsageError(f"{weights} is of another architecture: {str(error).splitlines()[-1].strip()}") from error


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies a mapping, with `prefix.` before every name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def part(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Selects the entries under `prefix.`, and removes the prefix."""
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of an optimizer as flat tensors `index.name`, without learning rates, which the schedule sets."""
    flat: dict[str, Tensor] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            flat[f"{index}.{name}"] = torch.as_tensor(value)
    return flat


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restores the state of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    complete = optimizer.state_dict()
    complete["state"] = state
    optimizer.load_state_dict(complete)
    # A checkpoint stores tensors contiguously, and fused optimizers pair a parameter with its moments in memory order.
    for parameter, own in optimizer.state.items():
        for name, value in own.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                own[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


class Ema:
    """Exponential moving average of a module's parameters, with a warm-up so that early steps have no weight."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.shadow = {name: tensor.detach().clone() for name, tensor in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Moves the average towards the module."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, parameter in module.named_parameters():
            self.shadow[name].lerp_(parameter.detach(), weight)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrites the module's parameters with the average."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.shadow[name])


def split_parameters(named: Iterable[tuple[str, nn.Parameter]]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Splits parameters into weight matrices for Muon and all others, such as tables and classification heads."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in named:
        if parameter.requires_grad:
            table = "position_embedding" in name or "classifier" in name
            is_matrix = parameter.ndim == 2 and not table and min(parameter.shape) > 8
            (matrices if is_matrix else others).append(parameter)
    return matrices, others
