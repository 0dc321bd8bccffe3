"""Registered decoder families, and recognition of a folder's family."""

import importlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from steerlens.decoders import Family
from steerlens.decoders.family import pipeline_of
from steerlens.zoo.registry import registered

KANDINSKY = "kandinsky-2.2"
"""The family of a folder that names no pipeline."""


def families() -> Mapping[str, Family]:
    """Returns the declarations of registered decoders, by name: the `FAMILIES` of the modules of entry points.

    Decoders without a declaration, such as `neighbours`, or whose module cannot be imported, are left out.
    """
    declared: dict[str, Family] = {}
    for name, place in registered("steerlens.decoders").items():
        with suppress(ImportError):
            module: Any = importlib.import_module(place.partition(":")[0])
            family = getattr(module, "FAMILIES", {}).get(name)
            if family is not None:
                declared[name] = family
    return declared


def holds_pipeline(folder: Path) -> bool:
    """True if a folder is one of the saved pipelines or models of a declared family."""
    pipeline = pipeline_of(folder)
    return pipeline is not None and any(family.pipeline == pipeline for family in families().values())


def family_of(folder: Path, weights: Path | None = None) -> str:
    """Returns the registered name of the decoder for a folder.

    Args:
        folder: folder of the decoder; without the name of a pipeline it is a Kandinsky 2.2.
        weights: a file of extra weights, as of an IP-Adapter; by default that in the folder.

    Returns:
        The name of a declared family; or the class that the folder names, under which a decoder without a declaration
        may be registered.

    Raises:
        ModelError: if a file of extra weights decides the family, and is missing or broken.
    """
    pipeline = pipeline_of(folder)
    if pipeline is None:
        return KANDINSKY
    alike = ((name, family) for name, family in families().items() if family.pipeline == pipeline)
    return next((name for name, family in alike if family.recognises(folder, weights)), pipeline)


def unbuildable(name: str) -> str | None:
    """Returns a known reason why the installed libraries cannot build a family, or None."""
    family = families().get(name)
    return None if family is None else family.unbuildable()
