"""Manifests: the names and shapes of every weight that a model should have, known without the weights.

They are generated from full-size configs, so that `steerlens doctor` can tell a right download from a wrong one.
"""

import gzip
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, cast

from torch import nn

from steerlens.zoo.architecture import Configs, on_meta

Manifest = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Shape of every weight, by component and name."""


def build_manifest(configs: Configs) -> Manifest:
    """The manifest of a set of configs, by building each model without numbers."""
    return {
        component: shapes_of(on_meta(component, config))
        for component, config in configs.items()
        if component != "scheduler"
    }


def shapes_of(model: nn.Module) -> Mapping[str, tuple[int, ...]]:
    """Shape of every weight of a model, by name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def write_manifest(manifest: Manifest) -> bytes:
    """A manifest as the bytes of its file, the same for the same content."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def read_manifest(name: str) -> Manifest:
    """A manifest that comes with the package."""
    data = (files("steerlens.zoo") / "manifests" / f"{name}.json.gz").read_bytes()
    content = cast(dict[str, dict[str, Any]], json.loads(gzip.decompress(data)))
    return {part: {name: tuple(shape) for name, shape in shapes.items()} for part, shapes in content.items()}


def differences(component: str, found: Mapping[str, tuple[int, ...]], manifest: Manifest) -> list[str]:
    """Where the weights of a component are not those of the manifest, one line each; none if all is right."""
    wanted = manifest[component]
    lines = [f"{component}: {name} is missing" for name in sorted(set(wanted) - set(found))]
    lines += [f"{component}: {name} should not be there" for name in sorted(set(found) - set(wanted))]
    lines += [
        f"{component}: {name} has shape {found[name]}, not {wanted[name]}"
        for name in sorted(set(wanted) & set(found))
        if found[name] != wanted[name]
    ]
    return lines
