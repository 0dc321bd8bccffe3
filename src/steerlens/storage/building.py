"""Limits on building models: a config that describes a larger model than its weights is refused."""

import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from steerlens.errors import ModelError

_TENSORS, _MODULES, _NUMBERS = 4, 32, 2
"""Factors relative to the weights: fused tensors may be split, modules may be empty, tied tensors count twice."""

_SMALL, _FEW = 1_000_000, 1_000
"""Numbers, and tensors or modules, that are always allowed."""


@contextmanager
def no_larger_than(shapes: Mapping[str, tuple[int, ...]], component: str, folder: Path) -> Generator[None]:
    """Stops building a model in this thread once it is far larger than its weights.

    Args:
        shapes: shapes of the weights, by name.
        component: its name in messages.
        folder: folder of the config and the weights.

    Raises:
        ModelError: as soon as more tensors, modules or numbers are built than the weights can fill.
    """
    thread = threading.get_ident()
    numbers = _SMALL + _NUMBERS * sum(torch.Size(shape).numel() for shape in shapes.values())
    tensors, modules = _FEW + _TENSORS * len(shapes), _FEW + _MODULES * len(shapes)
    counted = {"tensors": 0, "modules": 0, "numbers": 0}

    def check() -> None:
        if counted["tensors"] > tensors or counted["modules"] > modules or counted["numbers"] > numbers:
            raise ModelError(
                f"{component}: by its config in {folder} the model is far larger than its weights, which hold "
                f"{len(shapes)} tensors; config and weights do not belong together."
            )

    def parameter(module: nn.Module, name: str, value: Any) -> None:
        if value is not None and threading.get_ident() == thread:
            counted["tensors"] += 1
            counted["numbers"] += value.numel()
            check()

    def child(module: nn.Module, name: str, value: Any) -> None:
        if threading.get_ident() == thread:
            counted["modules"] += 1
            check()

    hooks = register_module_parameter_registration_hook(parameter), register_module_module_registration_hook(child)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def check_before_building(
    build: Callable[[], Any], shapes: Mapping[str, tuple[int, ...]], component: str, folder: Path
) -> None:
    """Builds a model on the meta device, and checks that its weights fit, before it is built with memory.

    A model that cannot be built there is checked when it is loaded.

    Args:
        build: builds the model from its config.
        shapes: shapes of the weights, by name.
        component: its name in messages.
        folder: folder of the config and the weights.

    Raises:
        ModelError: if the config describes a far larger model than the weights, or tensors of other shapes.
    """
    try:
        with no_larger_than(shapes, component, folder), torch.device("meta"):
            expected = {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}
    except ModelError:
        raise
    except Exception:  # for example `.item()` of a meta tensor; the real build reports other errors
        return
    wrong = [name for name in sorted(expected.keys() & shapes.keys()) if expected[name] != shapes[name]]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ModelError(
            f"{component}: {wrong[0]} has shape {shapes[wrong[0]]} in the weights and {expected[wrong[0]]} by the "
            f"config in {folder}{more}."
        )
