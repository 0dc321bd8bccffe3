"""Weights of IP-Adapters: one file beside a pipeline, put into its UNet by diffusers' own loader."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from steerlens.errors import ModelError

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor


def adapter_file(folder: Path) -> Path:
    """Finds the adapter's weights in a pipeline's folder, `ip-adapter*.safetensors`.

    Raises:
        ModelError: if there is no such file, or more than one.
    """
    files = sorted(folder.glob("ip-adapter*.safetensors"))
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise ModelError(f"{folder} should hold one adapter, ip-adapter*.safetensors; there is {names}.")
    return files[0]


def read_adapter(file: Path) -> "dict[str, dict[str, Tensor]]":
    """Reads an adapter's weights in their two groups.

    Raises:
        ModelError: if the file is broken or no adapter, or a weight is not finite.
    """
    import torch
    from safetensors import SafetensorError

    from steerlens.storage import load_tensors

    try:
        tensors = load_tensors(file)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"adapter: {file} cannot be read: {error}.") from None
    groups: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, tensor in tensors.items():
        group, _, name = key.partition(".")
        if group not in groups:
            raise ModelError(f"adapter: {file} holds {key}, which no IP-Adapter has.")
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"adapter: weights are not finite in {key}.")
        groups[group][name] = tensor
    if not all(groups.values()):
        raise ModelError(f"adapter: {file} is no IP-Adapter: it should hold image_proj and ip_adapter weights.")
    return groups


def with_adapter(unet: "UNet2DConditionModel", weights: "Mapping[str, Mapping[str, Tensor]]") -> "UNet2DConditionModel":
    """Puts an adapter's weights into a UNet, by diffusers' own loader, and returns it.

    Raises:
        ModelError: if the weights do not belong to this UNet.
    """
    from steerlens.storage import quiet_libraries

    try:
        with quiet_libraries():
            native = cast(Any, unet)
            native._load_ip_adapter_weights(
                [{group: dict(tensors) for group, tensors in weights.items()}], low_cpu_mem_usage=False
            )
            return native.to(unet.device, unet.dtype)
    except (KeyError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"adapter: its weights do not fit this UNet: {reason}") from error


def is_plus(file: Path) -> bool:
    """True if an adapter reads image tokens, from the header of its file."""
    from safetensors import SafetensorError

    from steerlens.storage import open_tensors

    try:
        with open_tensors(file) as opened:
            return "image_proj.latents" in opened.keys()  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"adapter: {file} cannot be read: {error}.") from None
