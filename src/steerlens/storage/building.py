"""Models are built no larger than their weights: sizes of a config that the weights cannot have end the building."""

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
"""Times as many as in the weights: fused tensors may be split, modules may hold none, and tied tensors count twice."""

_SMALL, _FEW = 1_000_000, 1_000
"""Numbers, and tensors or modules, that are always allowed."""


@contextmanager
def no_larger_than(shapes: Mapping[str, tuple[int, ...]], component: str, folder: Path) -> Generator[None]:
    """Ends the building of a model in this thread once it holds far more than its weights.

    Args:
        shapes: of the weights, by name.
        component: what to call it in messages.
        folder: of the config and the weights.

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
    """Builds a model without memory for its numbers, to see whether its weights fit it, before it is built in earnest.

    A model that cannot be built without numbers is left to be checked when it is loaded.

    Args:
        build: builds the model from its config.
        shapes: of the weights, by name.
        component: what to call it in messages.
        folder: of the config and the weights.

    Raises:
        ModelError: if the config describes a far larger model than the weights, or tensors of other shapes.
    """
    try:
        with no_larger_than(shapes, component, folder), torch.device("meta"):
            wanted = {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}
    except ModelError:
        raise
    except Exception:  # `.item()` of a tensor without numbers, for one; building in earnest tells what else is wrong
        return
    wrong = [name for name in sorted(wanted.keys() & shapes.keys()) if wanted[name] != shapes[name]]
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ModelError(
            f"{component}: {wrong[0]} has shape {shapes[wrong[0]]} in the weights and {wanted[wrong[0]]} by the config "
            f"in {folder}{more}."
        )
