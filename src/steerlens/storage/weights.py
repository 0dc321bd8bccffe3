"""Loading native models from folders: safetensors only, every key accounted for, every weight finite, no noise."""

import hashlib
import json
import math
import re
import struct
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from steerlens.borders import native_errors, reason
from steerlens.errors import ModelError
from steerlens.limits import is_special, over_limit
from steerlens.storage.building import check_before_building, no_larger_than
from steerlens.storage.configs import check_library_folder, index_files, read_json


@dataclass(frozen=True)
class Tensors:
    """Names and shapes of the tensors in a folder's weight files, read from their headers.

    Attributes:
        files: the weight files.
        shapes: shape of every tensor, by name.
        variant: the variant in the file's name, such as `fp16` in `model.fp16.safetensors`; usually None.
    """

    files: tuple[Path, ...]
    shapes: Mapping[str, tuple[int, ...]]
    variant: str | None = None

    @property
    def parameters(self) -> int:
        """Total number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())


_STEMS = ("model", "diffusion_pytorch_model")
"""Stems of the names of weight files of transformers and diffusers."""


def read_tensors(folder: Path, component: str) -> Tensors:
    """Reads names and shapes of a folder's weights: one file, or several with an index, plain or of one variant.

    Raises:
        ModelError: if there are none or several variants, or a file is truncated or not a safetensors file.
    """
    by_variant = {variant: _weight_files(folder, component, variant) for variant in (None, *_variants(folder))}
    present = [variant for variant, files in by_variant.items() if files]
    if len(present) > 1 and None not in present:
        raise ModelError(
            f"{component}: {folder} holds weights in several variants ({', '.join(map(str, present))}); keep the files "
            "of one."
        )
    if present:
        shapes: dict[str, tuple[int, ...]] = {}
        for file in by_variant[present[0]]:
            shapes.update(_header(file, component))
        return Tensors(by_variant[present[0]], shapes, present[0])
    raise ModelError(f"{component}: {folder} {_without_weights(folder)}.")


def _weight_files(folder: Path, component: str, variant: str | None) -> tuple[Path, ...]:
    """Returns the weight files of a variant; none if the folder does not contain it."""
    inside = "" if variant is None else f".{variant}"
    for stem in _STEMS:
        file = folder / f"{stem}{inside}.safetensors"
        if file.is_file():
            return (file,)
        index = folder / f"{stem}.safetensors.index{inside}.json"
        if index.is_file():
            return index_files(index, component)
    return ()


def _variants(folder: Path) -> list[str]:
    """Returns the variants of the weights in a folder, such as `fp16`, sorted."""
    patterns = [re.compile(rf"{stem}(?:\.safetensors\.index)?\.([\w-]+)\.(?:safetensors|json)") for stem in _STEMS]
    names = [path.name for path in folder.glob("*") if not re.search(r"-\d+-of-\d+\.", path.name)]
    matches = [match for name in names for pattern in patterns if (match := pattern.fullmatch(name))]
    return sorted({match[1] for match in matches} - {"index", "safetensors"})


def _without_weights(folder: Path) -> str:
    """Describes why no weights can be read from a folder."""
    safe, pickled = (sorted(path.name for path in folder.glob(f"*.{ending}")) for ending in ("safetensors", "bin"))
    if safe:
        wanted = " or ".join(f"{stem}.safetensors" for stem in _STEMS)
        return f"holds no {wanted}; its weights are named otherwise: {_listed(safe)}"
    hint = f" ({pickled[0]} is pickled, which can run code, and is not read)" if pickled else ""
    return f"holds no weights in safetensors files{hint}"


def _header(path: Path, component: str) -> dict[str, tuple[int, ...]]:
    if is_special(path):
        raise ModelError(f"{component}: {path} is not a regular file.")
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(8)
            if start.startswith(b"version "):
                raise ModelError(
                    f"{component}: {path} is a Git LFS pointer, not the weights; run `git lfs pull` there."
                )
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= max(size - 8, 0):
                raise ModelError(f"{component}: {path} is truncated or not a safetensors file.")
            if words := over_limit("config_bytes", length):
                raise ModelError(f"{component}: {path} has a header of {words}.")
            entries: dict[str, Any] = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in entries.items()}
    except FileNotFoundError:
        raise ModelError(f"{component}: {path}, which its index names, is not there.") from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{component}: {path} is not a safetensors file ({error}).") from None
    if size != end:
        raise ModelError(
            f"{component}: {path} is truncated or was changed: it should take {end} bytes and takes {size}. "
            "Fetch it again."
        )
    try:
        with safe_open(path, framework="pt"):  # finds tensors that overlap, or are of another size than their shape
            pass
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{component}: {path} is damaged: {reason(error)}. Fetch it again.") from None
    return shapes


@contextmanager
def quiet_libraries() -> Generator[None]:
    """Keeps transformers and diffusers from printing while open; this module checks what they would report."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries: tuple[Any, ...] = (transformers_logging, diffusers_logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    try:
        for library in libraries:
            library.set_verbosity_error()
            library.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for library, (verbosity, bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()


def load_module(
    kind: Any,
    folder: Path,
    component: str,
    *,
    dtype: torch.dtype,
    device: torch.device,
    ignore: Sequence[str] = (),
    arguments: Mapping[str, Any] | None = None,
) -> Any:
    """Loads a native model from a folder, checked, in evaluation mode.

    Args:
        kind: a model class of transformers or diffusers.
        folder: with `config.json` and safetensors.
        component: its name in messages.
        dtype: precision of the weights.
        device: device of the model.
        ignore: prefixes of weight names that may be present without being used.
        arguments: arguments of the class besides its config.

    Raises:
        ModelError: if weights are missing, unexpected, of another shape than the config says, or not finite.
    """
    check_library_folder(folder, component)
    weights = read_tensors(folder, component)
    options: dict[str, Any] = {
        "variant": weights.variant,
        "use_safetensors": True,
        "local_files_only": True,
        "output_loading_info": True,
        # Reported in the loading info instead of raised, so that this module writes the message.
        "ignore_mismatched_sizes": True,
    }
    # Decided by class, not by module, because diffusers defines a few transformers models, and plug-ins subclass
    # `ModelMixin`.
    if not hasattr(kind, "config_class"):
        options |= {"torch_dtype": dtype, "low_cpu_mem_usage": False}
        config = read_json(folder / "config.json", component)
        with quiet_libraries():
            check_before_building(lambda: kind.from_config(config), weights.shapes, component, folder)
    else:
        # Never chosen by a config, which can name packages that are not installed or kernels to be fetched.
        attention = "sdpa" if getattr(kind, "_supports_sdpa", False) else "eager"
        options |= {"dtype": dtype, "attn_implementation": attention, "trust_remote_code": False}
    with native_errors(f"{component}: {folder} cannot be loaded as a {kind.__name__}"), quiet_libraries():
        # transformers builds without memory for numbers, as is done above for diffusers.
        with no_larger_than(weights.shapes, component, folder):
            model, info = kind.from_pretrained(folder, **options, **(arguments or {}))
        _check_info(info, component, folder, ignore)
        check_finite(model, component)
        return model.to(device).eval()


def _check_info(info: Mapping[str, Any], component: str, folder: Path, ignore: Sequence[str]) -> None:
    unexpected = [key for key in info["unexpected_keys"] if not key.startswith(tuple(ignore))]
    for keys, what in ((info["missing_keys"], "lack"), (unexpected, "hold, without a place for it in the model,")):
        if keys:
            raise ModelError(f"{component}: the weights in {folder} {what} {_listed(keys)}.")
    if info["mismatched_keys"]:
        name, stored, declared = sorted(info["mismatched_keys"], key=lambda row: row[0])[0]
        raise ModelError(
            f"{component}: {name} has shape {tuple(stored)} in the weights and {tuple(declared)} by the config in "
            f"{folder}"
            f"{_more(len(info['mismatched_keys']) - 1)}."
        )


def check_finite(model: nn.Module, component: str) -> None:
    """Checks that no weight is NaN or infinite.

    Raises:
        ModelError: if a weight is.
    """
    broken = [name for name, tensor in model.state_dict().items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise ModelError(f"{component}: weights are not finite in {_listed(broken)}.")


def _listed(names: Sequence[str]) -> str:
    first = sorted(names)[:3]
    return ", ".join(first) + _more(len(names) - len(first))


def _more(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def file_hash(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes; for a file in the hub's cache, the hash in its name."""
    target = path.resolve()
    in_cache = path.is_symlink() and target.parent.name == "blobs"
    if in_cache and len(target.name) == 64 and not set(target.name) - set("0123456789abcdef"):
        return target.name
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
