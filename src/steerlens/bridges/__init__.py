"""Bridges: maps from one encoder's embedding space to another's, whose decoder then shows the first."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.bridges.encoder import BridgedEncoder
    from steerlens.bridges.fit import Candidate, Measured, fit_bridge, measure
    from steerlens.bridges.make import BridgeOptions, make_bridge
    from steerlens.bridges.maps import Bridge
    from steerlens.bridges.pair import FoundBridge, bridge_folder, find_bridge
    from steerlens.bridges.store import StoredBridge, end_of, parts_of, read_bridge, refuse_used, save_bridge

__all__ = [
    "Bridge",
    "BridgeOptions",
    "BridgedEncoder",
    "Candidate",
    "FoundBridge",
    "Measured",
    "StoredBridge",
    "bridge_folder",
    "end_of",
    "find_bridge",
    "fit_bridge",
    "make_bridge",
    "measure",
    "parts_of",
    "read_bridge",
    "refuse_used",
    "save_bridge",
]

__getattr__, __dir__ = lazy_names(__name__)
