"""Adapters by name: those of this package and those that other packages register as entry points."""

import importlib
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Literal

from steerlens.errors import ModelError

Group = Literal["steerlens.encoders", "steerlens.decoders"]

_OURS: Mapping[Group, Mapping[str, str]] = {
    "steerlens.encoders": {"clip": "steerlens.encoders.clip:CLIPEncoder"},
    "steerlens.decoders": {"kandinsky-2.2": "steerlens.decoders.kandinsky22:Kandinsky22Decoder"},
}
"""Known without entry points too, so that a checkout on the path works without being installed."""


def registered(group: Group) -> dict[str, str]:
    """Where each adapter of a group is, `module:attribute`, by name.

    Raises:
        ModelError: if two packages register different adapters under one name.
    """
    found = dict(_OURS[group])
    for entry in entry_points(group=group):
        if found.setdefault(entry.name, entry.value) != entry.value:
            raise ModelError(
                f"{group}: {entry.name!r} is registered twice, as {found[entry.name]} and as {entry.value}; "
                "uninstall one of the two packages."
            )
    return found


def adapter(group: Group, name: str) -> Any:
    """The adapter class of a name.

    Raises:
        ModelError: if there is none, or it cannot be imported.
    """
    known = registered(group)
    if name not in known:
        raise ModelError(f"no adapter is called {name!r} in {group}; known are {', '.join(known)}.")
    module, _, attribute = known[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"{group}: the adapter {name!r} cannot be loaded: {error}.") from error


def adapter_for(native: object) -> Any:
    """The encoder adapter that accepts a native model.

    Raises:
        ModelError: if none does.
    """
    for name in registered("steerlens.encoders"):
        candidate = adapter("steerlens.encoders", name)
        if candidate.accepts(native):
            return candidate
    known = ", ".join(registered("steerlens.encoders"))
    raise ModelError(f"no encoder adapter takes a {type(native).__name__}; there are adapters for {known}.")
