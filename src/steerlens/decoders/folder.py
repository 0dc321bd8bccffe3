"""Loading the parts of a saved pipeline: safetensors only, every weight accounted for and finite."""

from pathlib import Path
from typing import Any

import torch

from steerlens.storage.weights import load_module, read_json


def load_component(
    folder: Path, part: str, kind: Any, device: torch.device, dtype: torch.dtype, *, ignore: tuple[str, ...] = ()
) -> Any:
    """One model of a pipeline's folder, in evaluation mode.

    Raises:
        ModelError: if its weights are missing, broken or not those that its config says.
    """
    module = load_module(kind, folder / part, part, dtype=dtype, device=device, ignore=ignore)
    # Half-precision convolutions of GPUs want channels last; those of CPUs are slower with it, and so are its norms.
    return module.to(memory_format=torch.channels_last) if device.type == "cuda" else module


def load_config(folder: Path, part: str) -> dict[str, Any]:
    """The config of a scheduler in a pipeline's folder.

    Raises:
        ModelError: if it is missing or broken.
    """
    return read_json(folder / part / "scheduler_config.json", part)
