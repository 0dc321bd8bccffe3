"""Opening saved decoders: safetensors only, every weight accounted for and finite.

`SavedDecoder.from_folder` serves every family that declares its parts (`decoders.family`).
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor

from steerlens.decoders.base import DecodeOptions
from steerlens.decoders.family import WHOLE, Family, FolderPart
from steerlens.errors import ModelError
from steerlens.storage import load_module, read_json


class SavedDecoder:
    """A decoder that opens the folders of its family.

    A family overrides four methods where it differs; the defaults do nothing.

    Attributes:
        saved_as: the declaration of its folders.
    """

    saved_as: ClassVar[Family]

    @classmethod
    def check_folder(cls, folder: Path, negative: Tensor | None, name: str) -> None:
        """Refuses a folder whose parts do not fit, before reading gigabytes.

        Raises:
            ModelError: if they do not.
        """

    @classmethod
    def other_arguments(cls, folder: Path, negative: Tensor | None) -> dict[str, Any]:
        """Returns arguments of the constructor that are not parts of the folder: the empty text, "no condition"."""
        return {}

    @classmethod
    def put_in(cls, weights: Path | None, arguments: Mapping[str, Any], folder: Path) -> Mapping[str, Any] | None:
        """Puts a file of extra weights into the loaded parts, or returns further arguments that it gives.

        Args:
            weights: the file; by default that in the folder.
            arguments: the loaded parts, by argument of the constructor.
            folder: folder of the decoder.
        """

    @classmethod
    def folder_defaults(cls, arguments: Mapping[str, Any]) -> DecodeOptions | None:
        """Returns default options of a decoder from a folder; None for the constructor's own defaults."""
        return None

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        negative: Tensor | None,
        *,
        device: torch.device,
        dtype: torch.dtype,
        name: str = "",
        options: DecodeOptions | None = None,
        adapter: Path | None = None,
    ) -> Self:
        """Opens a saved decoder; text encoders are used once and not kept.

        Args:
            folder: a folder of the hub's layout.
            negative: a row of conditioning for "no condition"; None for the decoder's own.
            device: device of the decoder.
            dtype: precision.
            name: its name in reports.
            options: its default options.
            adapter: the file of extra weights, if it is not in the folder.

        Raises:
            ModelError: if a part is missing or broken, parts do not fit, or the installed diffusers cannot build it.
        """
        name = name or str(folder)
        cls.check_folder(folder, negative, name)
        arguments = cls.other_arguments(folder, negative)
        arguments |= load_parts(cls.saved_as, folder, device, dtype)
        arguments |= cls.put_in(adapter, arguments, folder) or {}
        return cast(Any, cls)(**arguments, name=name, defaults=options or cls.folder_defaults(arguments))


def load_parts(family: Family, folder: Path, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Loads the parts of a saved decoder that its adapter keeps, by argument of the constructor, in evaluation mode.

    Raises:
        ModelError: if weights are missing, broken or do not fit their config.
    """
    loaded: dict[str, Any] = {}
    for name, part in family.parts.items():
        if part.library == "scheduler":
            loaded[part.argument] = read_json(folder / name / "scheduler_config.json", name)
        elif part.argument:
            loaded[part.argument] = _load(part, folder, name, device, dtype)
    return loaded


def load_component(folder: Path, part: str, kind: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Loads one model of a pipeline's folder, in evaluation mode.

    Raises:
        ModelError: if its weights are missing, broken or do not fit its config.
    """
    module = load_module(kind, folder / part, part, dtype=dtype, device=device)
    # Half-precision convolutions are faster with channels last on GPUs, and slower on CPUs, as are norms.
    return module.to(memory_format=torch.channels_last) if device.type == "cuda" else module


def _load(part: FolderPart, folder: Path, name: str, device: torch.device, dtype: torch.dtype) -> Any:
    if part.precision == "float32":
        dtype = torch.float32
    elif part.precision == "bfloat16" and dtype == torch.float16:
        dtype = torch.bfloat16
    elif part.precision == "upcast" and dtype == torch.float16:
        upcast = read_json(folder / name / "config.json", name).get("force_upcast", False)
        dtype = torch.float32 if upcast else dtype
    if name == WHOLE:
        # Keeps the memory layout: the encoder inside must give the same numbers as by itself.
        return load_module(_class("decoder", part.kind), folder, "decoder", dtype=dtype, device=device)
    return load_component(folder, name, _class(name, part.kind), device, dtype)


def _class(part: str, kind: str) -> Any:
    module, _, name = kind.rpartition(":")
    try:
        return getattr(import_module(module or "diffusers"), name)
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"{part}: diffusers {version('diffusers')} has no {name}, which diffusers 0.42 has; install that."
        ) from error
