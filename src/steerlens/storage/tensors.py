"""Tensors read from single files, checked: safetensors, and PyTorch files that hold tensors and plain values alone.

A PyTorch file is read by `torch.load(weights_only=True)`, which runs no code; whatever it refuses is refused here.
"""

import io
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from torch import Tensor

from steerlens.borders import reason
from steerlens.errors import ModelError, UsageError
from steerlens.limits import is_special, over_limit, read_file


def open_tensors(path: Path) -> safe_open:
    """Opens a safetensors file, to read its metadata, or its tensors one by one.

    Args:
        path: the file.

    Raises:
        OSError: if it cannot be read. A pipe or a device is refused, since the library would wait for it, through
            interrupts too.
        SafetensorError: if it is damaged.
    """
    if is_special(path):
        raise OSError(f"{path.name} is not a regular file")
    return safe_open(path, framework="pt")


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Loads all tensors of a safetensors file of any size; raises as `open_tensors` does."""
    with open_tensors(path) as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)


def read_safetensors(path: Path, component: str, limit: str = "tensors_bytes") -> dict[str, Tensor]:
    """Reads all tensors of a safetensors file.

    Args:
        path: the file.
        component: its name in messages.
        limit: name of the limit on its size.

    Raises:
        ModelError: if it is missing, too large, damaged, or not a safetensors file.
    """
    data = _data(path, component, limit)
    if data.startswith(b"version "):
        raise ModelError(f"{component}: {path} is a Git LFS pointer, not the weights; run `git lfs pull` there.")
    try:
        return load_safetensors(data)
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{component}: {path} is not a safetensors file ({reason(error)}).") from None


def read_pytorch(path: Path, component: str, limit: str = "tensors_bytes") -> Any:
    """Reads a PyTorch file of tensors and plain values, on the CPU.

    Raises:
        ModelError: as `parse_pytorch`, or if it is missing or too large.
    """
    return parse_pytorch(_data(path, component, limit), path, component, limit)


def parse_pytorch(data: bytes, path: Path, component: str, limit: str = "tensors_bytes") -> Any:
    """Reads the content of a PyTorch file, on the CPU.

    Args:
        data: the content.
        path: where it came from.
        component: its name in messages.
        limit: name of the limit on its unpacked size.

    Raises:
        ModelError: if it is damaged, too large once unpacked, or holds anything but tensors and plain values.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        # The format before PyTorch 1.6 is a bare pickle, whose sizes nothing bounds.
        raise ModelError(
            f"{component}: {path} is not a file of PyTorch 1.6 or later. A pickle is not read: it can run code. Save "
            "the tensors as safetensors."
        ) from None
    if words := over_limit(limit, size):
        raise ModelError(f"{component}: {path} unpacks to {words}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about kinds of tensors that are refused below or by the reader
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, torch and zip each have errors of their own
        raise ModelError(
            f"{component}: {path} holds more than tensors and plain values, or is damaged. A pickle that can run code "
            f"is not read; save the tensors as safetensors. ({reason(error).partition('. ')[0]})"
        ) from None
    for tensor in _tensors(content):
        # A stride of 0 lets a few stored numbers claim any size, and the first operation would allocate it.
        if tensor.layout != torch.strided or tensor.is_meta:
            raise ModelError(f"{component}: {path} holds a sparse tensor or one without values; save dense tensors.")
        if tensor.numel() * tensor.element_size() > size:
            raise ModelError(
                f"{component}: {path} holds a tensor of shape {tuple(tensor.shape)}, larger than the file."
            )
    return content


def _tensors(content: Any) -> Iterator[Tensor]:
    """Yields the tensors of nested tables, each table once: pickled tables may hold one another."""
    waiting, visited = [content], set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping) and id(cast(object, value)) not in visited:
            visited.add(id(cast(object, value)))
            waiting.extend(cast(Mapping[Any, Any], value).values())


def _data(path: Path, component: str, limit: str) -> bytes:
    try:
        return read_file(path, limit)
    except UsageError as error:
        raise ModelError(f"{component}: {error}") from None
