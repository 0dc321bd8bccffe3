"""Device and precision of models: the user's choice, or defaults."""

from typing import Literal, cast, get_args

import torch

from steerlens.errors import UsageError

DTypeName = Literal["auto", "float32", "bfloat16", "float16"]

_LARGE = 4_000_000_000
"""Bytes in float32 above which an encoder runs in half precision by default."""


def choose_device(device: str | torch.device | None) -> torch.device:
    """Returns the given device; by default CUDA if there is a GPU, else the CPU.

    Raises:
        UsageError: if there is no such device.
    """
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UsageError(f"device {str(device)!r} cannot be used here: {reason}.") from None
    return chosen


def parse_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Reads a precision; None for `auto`.

    Raises:
        UsageError: if there is no such precision.
    """
    if dtype is None or dtype == "auto":
        return None
    name = str(dtype).removeprefix("torch.")
    if name not in get_args(DTypeName):
        raise UsageError(f"unknown precision {name!r}; there are {', '.join(get_args(DTypeName))}.")
    return cast(torch.dtype, getattr(torch, name))


def fast_bfloat16(device: torch.device) -> bool:
    """True if the processor multiplies bfloat16 matrices in hardware (AMX or AVX-512 BF16 on x86, BF16 on Arm).

    Other processors emulate it, several times slower than float32.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16", "arm_bf16"))


def encoder_dtype(device: torch.device, parameters: int, requested: torch.dtype | None) -> torch.dtype:
    """Returns the requested precision, or float32 (exact to rounding), or half precision above 4 GB of weights."""
    if requested is not None:
        return requested
    if 4 * parameters <= _LARGE:
        return torch.float32
    # CLIP towers are published in float16, which CUDA runs directly; on CPUs only bfloat16 is fast.
    return torch.float16 if device.type == "cuda" else torch.bfloat16


def decoder_dtype(device: torch.device, requested: torch.dtype | None) -> torch.dtype:
    """Returns the requested precision, or float16 on CUDA, bfloat16 on CPUs with hardware for it, else float32."""
    if requested is not None:
        return requested
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if fast_bfloat16(device) else torch.float32
