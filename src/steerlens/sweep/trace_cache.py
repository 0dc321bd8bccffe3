"""Traces kept from run to run, so that the same picture goes through the same weights once.

    FOLDER/traces/MODEL/model.json            what decides every trace in this folder
    FOLDER/traces/MODEL/ENTRY.safetensors     a trace with the embedding of its picture

MODEL is a hash of the encoder's files and of all else that decides the numbers; ENTRY is a hash of what the encoder
sees, taken after preprocessing, so that the bytes of the picture and the backend that prepared them are both in it.
An entry that is broken counts as absent. Several processes may share the folder.
"""

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from steerlens.encoders.base import Inputs
from steerlens.encoders.native import NativeEncoder
from steerlens.errors import StoreError, UsageError
from steerlens.storage.files import atomic_write, files_under
from steerlens.trace import Trace
from steerlens.zoo.pair import Pair

FORMAT = 1
"""Version of the layout of an entry; it is part of what MODEL is a hash of."""

LIMIT_GIGABYTES = 5.0

_PARTS = ("embed", "head_values", "attn_out", "mlp_out", "resid_post", "embedding", "attention")
"""What an entry holds of a trace. Weights are the model's; the values of all tokens would be most of an entry."""

_FILES = ("image_encoder/", "image_processor/", "bridge/")
"""Of a pair's files, those that decide what its encoder gives."""

_ABANDONED_SECONDS = 3600
"""Age at which a file that is still under a temporary name was left behind by a process that died."""

_WRITES_A_COUNT = 16
"""Entries written before all are counted again: other processes write to the same folder, and each counts its own."""

_SHARE_LEFT = 0.9
"""Once the limit is passed, as much of it is left, so that not every further entry means another clearing."""


@dataclass(frozen=True)
class CachedModel:
    """The traces of one encoder under one set of conditions.

    Attributes:
        name: as the encoder was named when the first of them was stored.
        folder: where they are.
        entries: how many.
        size: bytes that they take.
    """

    name: str
    folder: Path
    entries: int
    size: int


def cache_folder() -> Path:
    """`STEERLENS_CACHE`, or `steerlens` in the user's cache folder (`XDG_CACHE_HOME`, by default `~/.cache`)."""
    if own := os.environ.get("STEERLENS_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rule: a path that is not absolute is ignored.
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "steerlens"


def size_limit() -> int:
    """Bytes that all traces may take: `STEERLENS_CACHE_GB` in gigabytes, by default 5; 0 turns the cache off.

    Raises:
        UsageError: if the variable holds no such number.
    """
    text = os.environ.get("STEERLENS_CACHE_GB", "")
    try:
        gigabytes = float(text) if text else LIMIT_GIGABYTES
    except ValueError:
        gigabytes = math.nan
    if not 0 <= gigabytes < math.inf:
        raise UsageError(f"STEERLENS_CACHE_GB is a number of gigabytes from 0, not {text!r}.")
    return int(gigabytes * 1e9)


def trace_cache(pair: Pair) -> "TraceCache | None":
    """A cache of the traces of a pair's encoder, whose weights must be as its files hold them.

    None if the cache is turned off, or it is not known which weights the encoder has.

    Raises:
        UsageError: if the limit makes no sense.
    """
    encoder, limit = pair.encoder, size_limit()
    hashes: Mapping[str, str] = pair.provenance.get("sha256", {})
    own = {name: digest for name, digest in hashes.items() if name.startswith(_FILES)}
    weights = any(name.startswith("image_encoder/") and name.endswith(".safetensors") for name in own)
    if not limit or not weights or not isinstance(encoder, NativeEncoder):
        return None
    return TraceCache(encoder, cache_folder(), limit, _conditions(encoder, own, pair.provenance))


def _conditions(encoder: NativeEncoder, hashes: Mapping[str, str], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """All that decides a trace besides what the encoder sees, as JSON values."""
    device = encoder.device
    arithmetic = (
        [torch.cuda.get_device_name(device), torch.get_float32_matmul_precision()]
        if device.type == "cuda"
        else [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    )
    return {
        "format": FORMAT,
        "sha256": dict(hashes),
        "sizes": asdict(replace(encoder.spec, name="")),
        "dtype": str(encoder.dtype),
        "device": [device.type, *arithmetic],
        "versions": provenance.get("versions", {}),
    }


class TraceCache:
    """Traces of one encoder, on disk.

    Attributes:
        notes: what the user should hear of: at most one line, if traces could not be kept.
    """

    def __init__(self, encoder: NativeEncoder, folder: Path, limit: int, conditions: Mapping[str, Any]) -> None:
        """Args:
        encoder: takes the traces that are not there.
        folder: of the whole cache.
        limit: bytes that the traces of all models may take.
        conditions: all that decides a trace besides what the encoder sees, as JSON values.
        """
        digest = hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()
        self._encoder, self._root, self._limit = encoder, folder, limit
        self._folder = folder / "traces" / digest[:16]
        self._description = {"name": encoder.spec.name, **conditions}
        self._size = self._writes = 0
        self.notes: list[str] = []

    def trace(self, inputs: Inputs) -> Trace:
        """The trace of what `preprocess` gave, with attention and without values: from the disk, or taken and kept."""
        path = self._folder / f"{_inputs_hash(inputs)}.safetensors"
        held = _read_entry(path)
        if held is None:
            trace = replace(self._encoder.trace(inputs, attention=True), values=None)
            self._keep(path, trace)
            return trace
        out_weights, attn_bias = self._encoder.projections()
        tensors = {name: tensor.to(self._encoder.device) for name, tensor in held.items()}
        return Trace(**tensors, out_weights=out_weights, attn_bias=attn_bias)

    def _keep(self, path: Path, trace: Trace) -> None:
        if self.notes:
            return
        data = _entry_bytes({name: getattr(trace, name) for name in _PARTS})
        if len(data) > self._limit:
            self.notes.append(f"traces are not kept: one takes {len(data) / 1e6:.3g} MB, more than the cache may hold")
            return
        try:
            if not (self._folder / "model.json").exists():
                atomic_write(self._folder / "model.json", json.dumps(self._description, indent=1).encode())
            atomic_write(path, data)
            self._size = self._size + len(data) if self._writes % _WRITES_A_COUNT else _size_of(self._root)
            self._writes += 1
            if self._size > self._limit:
                self._size = _shrink(self._root, self._limit)
        except (OSError, StoreError) as error:
            cause = error.__cause__ or error
            reason = getattr(cause, "strerror", None) or cause
            self.notes.append(f"traces are not kept for later runs: {self._folder} cannot be written ({reason})")


def cached_models(folder: Path) -> list[CachedModel]:
    """What a cache holds, one entry a model and set of conditions, the largest first."""
    models: list[CachedModel] = []
    for place in sorted((folder / "traces").glob("*/")):
        sizes = [size for _, size, _ in _entries(place)]
        models.append(CachedModel(_name_of(place), place, len(sizes), sum(sizes)))
    return sorted(models, key=lambda model: -model.size)


def clear_cache(folder: Path, model: str | None = None) -> list[CachedModel]:
    """Removes all traces, or those of one model, and returns what was removed; runs go on unharmed.

    Args:
        folder: of the cache.
        model: name of the encoder.

    Raises:
        UsageError: if the cache holds no such model.
        StoreError: if a file cannot be removed.
    """
    held = cached_models(folder)
    chosen = [one for one in held if model is None or one.name == model]
    if model is not None and not chosen:
        known = ", ".join(sorted({one.name for one in held})) or "none"
        raise UsageError(f"the cache in {folder} holds no traces of {model!r}; it holds: {known}.")
    for one in chosen:
        try:
            for path in (*one.folder.glob("*.safetensors"), *one.folder.glob(".*.*"), one.folder / "model.json"):
                path.unlink(missing_ok=True)
            one.folder.rmdir()
        except OSError as error:
            raise StoreError(f"{one.folder} cannot be cleared: {error.strerror or error}.") from error
    return chosen


def _inputs_hash(inputs: Inputs) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(inputs.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _entry_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    digest, strides = hashlib.sha256(), dict[str, tuple[int, ...]]()
    for name, tensor in tensors.items():
        digest.update(_bytes_of(tensor))
        strides[name] = tensor.contiguous().stride() if 0 in tensor.stride() else tensor.stride()
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save_tensors(held, {"sha256": digest.hexdigest(), "strides": json.dumps(strides)})


def _read_entry(path: Path) -> dict[str, Tensor] | None:
    """The tensors of an entry, or None if it is not there or not whole."""
    try:
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        tensors, strides, digest = load_tensors(data), json.loads(header["strides"]), hashlib.sha256()
        for name in _PARTS:
            digest.update(_bytes_of(tensors[name]))
        if digest.hexdigest() != header["sha256"]:
            return None
        # As the encoder laid them out in memory: the order in which numbers are summed up depends on it.
        laid_out = {
            name: torch.empty_strided(tensors[name].shape, strides[name], dtype=tensors[name].dtype) for name in _PARTS
        }
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError):
        return None
    with suppress(OSError):  # the time of last use, which decides what goes first; a folder may be read-only
        os.utime(path)
    return {name: place.copy_(tensors[name]) for name, place in laid_out.items()}


def _entries(folder: Path) -> list[tuple[float, int, Path]]:
    """The entries under a folder: time of last use, size in bytes, file."""
    return [(status.st_mtime, status.st_size, path) for path, status in files_under(folder, ".safetensors")]


def _size_of(folder: Path) -> int:
    return sum(size for _, size, _ in _entries(folder / "traces"))


def _shrink(folder: Path, limit: int) -> int:
    """Removes the entries that were not used for longest, and what dead processes left; returns the size after it."""
    now = time.time()
    for path in (folder / "traces").glob("*/.*.*"):
        with suppress(FileNotFoundError):
            if now - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
    entries = sorted(_entries(folder / "traces"))
    total = sum(size for _, size, _ in entries)
    for _, size, path in entries:
        if total <= limit * _SHARE_LEFT:
            break
        path.unlink(missing_ok=True)
        total -= size
    return total


def _name_of(folder: Path) -> str:
    try:
        return str(json.loads((folder / "model.json").read_bytes())["name"])
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown"
