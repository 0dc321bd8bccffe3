"""Cache of traces across runs, so that the same picture goes through the same weights only once.

    FOLDER/traces/MODEL/model.json            the conditions that decide every trace in this folder
    FOLDER/traces/MODEL/ENTRY.safetensors     a trace with the embedding of its picture

MODEL is a hash of the encoder's files and of everything else that decides the numbers; ENTRY is a hash of the encoder's
input after preprocessing, so that it covers both the bytes of the picture and the backend that prepared them.
A broken entry counts as absent. Several processes may share the folder.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from steerlens.encoders import Inputs, NativeEncoder
from steerlens.errors import StoreError
from steerlens.limits import is_special
from steerlens.storage import OwnedFolder, cache_folder
from steerlens.storage.parameters import tensor_bytes, weights_hash
from steerlens.sweep.cache_contents import (
    MODEL_FILE,
    TRACES,
    describe,
    is_described,
    shrink,
    size_limit,
    size_of,
)
from steerlens.trace import Trace
from steerlens.zoo import Pair
from steerlens.zoo.identity import attention_of, weights_are_files

FORMAT = 1
"""Version of the layout of an entry; part of the hash MODEL."""

_PARTS = ("embed", "head_values", "attn_out", "mlp_out", "resid_post", "embedding", "attention")
"""Fields of a trace in an entry. Weights belong to the model; the values of all tokens would take most of the space."""

_FILES = ("image_encoder/", "image_processor/", "bridge/")
"""Folders of those files of a pair that decide the encoder's output."""

_WRITES_A_COUNT = 16
"""Entries written between two scans of the folder's size: each process counts its own writes only."""


def trace_cache(pair: Pair) -> "TraceCache | None":
    """Cache for the traces of a pair's encoder, whose weights must be those of its files.

    None if the cache is turned off, or if hashes of the encoder's weights are not known.

    Raises:
        UsageError: if the size limit is not a number from 0.
    """
    encoder, limit = pair.encoder, size_limit()
    hashes = pair.provenance.sha256
    own = {name: digest for name, digest in hashes.items() if name.startswith(_FILES)}
    if not limit or not weights_are_files(own, "image_encoder") or not isinstance(encoder, NativeEncoder):
        return None
    conditions = _conditions(encoder, own, pair.provenance.versions)
    if not pair.is_as_loaded:
        conditions["weights"] = weights_hash(encoder)
    if (attention := attention_of(encoder)) not in ("sdpa", "its own"):
        conditions["attention"] = attention
    return TraceCache(encoder, cache_folder(), limit, conditions)


def _conditions(encoder: NativeEncoder, hashes: Mapping[str, str], versions: Mapping[str, str]) -> dict[str, Any]:
    """Everything besides the encoder's input that decides a trace, as JSON values."""
    device = encoder.device
    arithmetic = (
        [torch.cuda.get_device_name(device), torch.get_float32_matmul_precision()]
        if device.type == "cuda"
        else [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    )
    return {
        "format": FORMAT,
        "sha256": dict(hashes),
        "sizes": {name: value for name, value in asdict(replace(encoder.spec, name="")).items() if name != "geometry"},
        "dtype": str(encoder.dtype),
        "device": [device.type, *arithmetic],
        "versions": dict(versions),
    }


class TraceCache:
    """Cache of the traces of one encoder, on disk.

    Attributes:
        notes: messages for the user: at most one line, if traces could not be stored.
    """

    def __init__(self, encoder: NativeEncoder, folder: Path, limit: int, conditions: Mapping[str, Any]) -> None:
        """Opens the cache of one encoder.

        Args:
            encoder: computes traces that are not in the cache.
            folder: folder of the whole cache.
            limit: bytes that the traces of all models may take.
            conditions: everything besides the encoder's input that decides a trace, as JSON values.
        """
        self._encoder, self._root, self._limit = encoder, OwnedFolder(folder), limit
        self._name, self._description = describe(encoder.spec.name, conditions)
        self._folder = folder / TRACES / self._name
        self._size = self._writes = 0
        self.notes: list[str] = []

    def trace(self, inputs: Inputs) -> Trace:
        """Trace of preprocessed inputs, with attention and without values: from disk, or computed and stored."""
        file = f"{_inputs_hash(inputs)}.safetensors"
        entry = _read_entry(self._folder / file)
        if entry is None:
            attended = self._encoder.trace(inputs, attention=True)
            trace = replace(attended, recorded_values=None, value_scale=None, value_shift=None)
            self._keep(file, trace)
            return trace
        out_weights, attn_bias = self._encoder.projections()
        tensors: dict[str, Any] = {name: tensor.to(self._encoder.device) for name, tensor in entry.items()}
        attention = tensors.pop("attention")
        return Trace(**tensors, out_weights=out_weights, attn_bias=attn_bias, recorded_attention=attention)

    def _keep(self, file: str, trace: Trace) -> None:
        if self.notes:
            return
        data = _entry_bytes({name: getattr(trace, name) for name in _PARTS})
        if len(data) > self._limit:
            self.notes.append(f"traces are not kept: each takes {len(data) / 1e6:.3g} MB, above the cache's limit")
            return
        try:
            if not is_described(self._folder):
                self._root.write(self._description, TRACES, self._name, MODEL_FILE)
            self._root.write(data, TRACES, self._name, file)
            self._size = self._size + len(data) if self._writes % _WRITES_A_COUNT else size_of(self._root.folder)
            self._writes += 1
            if self._size > self._limit:
                self._size = shrink(self._root.folder, self._limit)
        except (OSError, StoreError) as error:
            cause = error.__cause__ or error
            reason = getattr(cause, "strerror", None) or cause
            self.notes.append(f"traces are not kept for later runs: {self._folder} cannot be written ({reason})")


def _inputs_hash(inputs: Inputs) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(inputs.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def _entry_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    digest, strides = hashlib.sha256(), dict[str, tuple[int, ...]]()
    for name, tensor in tensors.items():
        digest.update(tensor_bytes(tensor))
        strides[name] = tensor.contiguous().stride() if 0 in tensor.stride() else tensor.stride()
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save_tensors(contiguous, {"sha256": digest.hexdigest(), "strides": json.dumps(strides)})


def _read_entry(path: Path) -> dict[str, Tensor] | None:
    """Reads the tensors of an entry; None if it is missing or damaged."""
    if is_special(path):
        return None
    try:
        data = path.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        tensors, strides, digest = load_tensors(data), json.loads(header["strides"]), hashlib.sha256()
        for name in _PARTS:
            digest.update(tensor_bytes(tensors[name]))
        if digest.hexdigest() != header["sha256"]:
            return None
        # The encoder's own memory layout: the order of summation depends on it.
        laid_out = {
            name: torch.empty_strided(tensors[name].shape, strides[name], dtype=tensors[name].dtype) for name in _PARTS
        }
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError):
        return None
    with suppress(OSError):  # marks the entry as used, so that it is removed later; the folder may be read-only
        os.utime(path)
    return {name: tensor.copy_(tensors[name]) for name, tensor in laid_out.items()}
