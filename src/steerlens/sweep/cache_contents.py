"""Contents of the trace cache: which files are steerlens's own, their size, and their removal.

A folder of traces is recognised by its `model.json`, whose contents give the folder its name (`describe`), and a trace
by a name of 64 hexadecimal digits. Any other file there was written by somebody else and stays.
"""

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from steerlens.errors import StoreError, UsageError
from steerlens.limits import is_special
from steerlens.storage import OwnedFolder, files_under

LIMIT_GIGABYTES = 5.0

TRACES, MODEL_FILE = "traces", "model.json"

_ENTRY = re.compile(r"[0-9a-f]{64}\.safetensors")

_OWN = re.compile(rf"{_ENTRY.pattern}|model\.json")

_EARLIER_UNFINISHED = re.compile(rf"\.({_OWN.pattern})\.[a-z0-9_]{{8}}")
"""Temporary names that an earlier version used; files of such names are ours only in a folder of traces."""

_ABANDONED_SECONDS = 3600
"""Age at which a file under a temporary name must have been left behind by a process that died."""

_SHARE_LEFT = 0.9
"""Share of the limit to which the cache shrinks once it exceeds it, so that not every new entry shrinks it again."""


@dataclass(frozen=True)
class CachedModel:
    """The traces of one encoder under one set of conditions.

    Attributes:
        name: name of the encoder when the first trace was stored.
        folder: folder of the traces.
        entries: number of traces.
        size: size of the traces in bytes.
    """

    name: str
    folder: Path
    entries: int
    size: int


@dataclass(frozen=True)
class Cleared:
    """Outcome of clearing a cache.

    Attributes:
        models: the models whose traces were removed.
        foreign: number of files in the folder that steerlens did not write; they are still there.
    """

    models: tuple[CachedModel, ...]
    foreign: int


def size_limit() -> int:
    """Bytes that all traces may take: `STEERLENS_CACHE_GB` in gigabytes, by default 5; 0 turns the cache off.

    Raises:
        UsageError: if the variable is not such a number.
    """
    text = os.environ.get("STEERLENS_CACHE_GB", "")
    try:
        gigabytes = float(text) if text else LIMIT_GIGABYTES
    except ValueError:
        gigabytes = math.nan
    if not 0 <= gigabytes < math.inf:
        raise UsageError(f"STEERLENS_CACHE_GB must be a number of gigabytes, 0 or more, not {text!r}.")
    return int(gigabytes * 1e9)


def describe(name: str, conditions: Mapping[str, Any]) -> tuple[str, bytes]:
    """The name of a folder of traces, and the bytes of its `model.json`.

    Args:
        name: name of the encoder, shown to users only.
        conditions: everything besides the encoder's input that decides a trace, as JSON values.
    """
    return _name_by(conditions), json.dumps({"name": name, **conditions}, indent=1).encode()


def is_described(folder: Path) -> bool:
    """True if a folder contains traces: its `model.json` is the one that gave the folder its name."""
    return _description(folder) is not None


def cached_models(folder: Path) -> list[CachedModel]:
    """Contents of a cache: an entry for each model and set of conditions, the largest first."""
    models: list[CachedModel] = []
    for traces, description in _model_folders(folder):
        sizes = [size for _, size, _ in _entries(traces)]
        models.append(CachedModel(str(description.get("name", "unknown")), traces, len(sizes), sum(sizes)))
    return sorted(models, key=lambda model: -model.size)


def foreign_files(folder: Path) -> int:
    """Number of files among the traces of a cache that steerlens did not write."""
    ours = {path for traces, _ in _model_folders(folder) for path in _own_files(traces)}
    return sum(path not in ours for path, _ in files_under(folder / TRACES))


def clear_cache(folder: Path, model: str | None = None) -> Cleared:
    """Removes all traces, or those of one model, and nothing else; runs that use them are not harmed.

    Args:
        folder: the cache.
        model: name of the encoder; None for all.

    Raises:
        UsageError: if the cache has no such model.
        StoreError: if a file cannot be removed.
    """
    models = cached_models(folder)
    chosen = tuple(entry for entry in models if model is None or entry.name == model)
    if model is not None and not chosen:
        known = ", ".join(sorted({entry.name for entry in models})) or "none"
        raise UsageError(f"the cache in {folder} has no traces of {model!r}; it has traces of: {known}.")
    foreign = foreign_files(folder)
    for entry in chosen:
        try:
            for path in _own_files(entry.folder):  # the description goes last: without it the rest is not ours
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{entry.folder} cannot be cleared: {error.strerror or error}.") from error
        with suppress(OSError):  # the folder contains something else
            entry.folder.rmdir()
    return Cleared(chosen, foreign)


def size_of(folder: Path) -> int:
    """Bytes that all traces of a cache take."""
    return sum(size for traces, _ in _model_folders(folder) for _, size, _ in _entries(traces))


def shrink(folder: Path, limit: int) -> int:
    """Removes the least recently used traces and the files that dead processes left; returns the size that remains.

    Args:
        folder: the cache.
        limit: bytes that all traces may take.
    """
    now, models = time.time(), [traces for traces, _ in _model_folders(folder)]
    for path in (path for traces in models for path in _unfinished(traces)):
        with suppress(FileNotFoundError):
            if now - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()
    entries = sorted(entry for traces in models for entry in _entries(traces))
    total = sum(size for _, size, _ in entries)
    for _, size, path in entries:
        if total <= limit * _SHARE_LEFT:
            break
        path.unlink(missing_ok=True)
        total -= size
    return total


def _name_by(conditions: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]


def _description(folder: Path) -> dict[str, Any] | None:
    if folder.is_symlink() or is_special(folder / MODEL_FILE):
        return None
    try:
        content = json.loads((folder / MODEL_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    description = cast(dict[str, Any], content)
    conditions = {key: value for key, value in description.items() if key != "name"}
    return description if _name_by(conditions) == folder.name else None


def _model_folders(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for traces in sorted((folder / TRACES).glob("*/")):
        if (description := _description(traces)) is not None:
            yield traces, description


def _entries(folder: Path) -> list[tuple[float, int, Path]]:
    """The traces of a folder: time of last use, size in bytes, file."""
    entries: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process removes them too
            if _ENTRY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
                status = path.stat()
                entries.append((status.st_mtime, status.st_size, path))
    return entries


def _unfinished(folder: Path) -> list[Path]:
    earlier = [path for path in folder.glob(".*") if _EARLIER_UNFINISHED.fullmatch(path.name) and path.is_file()]
    return [*OwnedFolder(folder).unfinished(_OWN), *earlier]


def _own_files(folder: Path) -> list[Path]:
    return [*(path for _, _, path in _entries(folder)), *_unfinished(folder), folder / MODEL_FILE]
