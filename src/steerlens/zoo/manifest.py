"""Manifests: the names and shapes of all weights of a model, known without the weights.

They are generated from full-size configs, so that `steerlens doctor` can check a download.
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
    """Builds the manifest of a set of configs, from each model on the meta device."""
    return {
        component: shapes_of(on_meta(component, config))
        for component, config in configs.items()
        if component != "scheduler"
    }


def shapes_of(model: nn.Module) -> Mapping[str, tuple[int, ...]]:
    """Returns the shape of every weight of a model, by name."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def write_manifest(manifest: Manifest) -> bytes:
    """Serialises a manifest; equal manifests give equal bytes."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def read_manifest(name: str) -> Manifest:
    """Reads a manifest of the package."""
    data = (files("steerlens.zoo") / "manifests" / f"{name}.json.gz").read_bytes()
    content = cast(dict[str, dict[str, Any]], json.loads(gzip.decompress(data)))
    return {part: {name: tuple(shape) for name, shape in shapes.items()} for part, shapes in content.items()}


def differences(component: str, shapes: Mapping[str, tuple[int, ...]], manifest: Manifest) -> list[str]:
    """Lists the differences between a component's weights and its manifest, one line each; none if they agree."""
    wanted = manifest[component]
    lines = [f"{component}: {name} is missing" for name in sorted(set(wanted) - set(shapes))]
    lines += [f"{component}: {name} should not be there" for name in sorted(set(shapes) - set(wanted))]
    lines += [
        f"{component}: {name} has shape {shapes[name]}, not {wanted[name]}"
        for name in sorted(set(wanted) & set(shapes))
        if shapes[name] != wanted[name]
    ]
    return lines
