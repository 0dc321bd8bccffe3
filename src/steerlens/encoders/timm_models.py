"""Models of timm: the trunk that reads one, and the names in its config."""

from collections.abc import Mapping, Sequence
from typing import Any

from steerlens.encoders.eva import EvaTrunk
from steerlens.encoders.structure import class_name
from steerlens.encoders.timm_trunk import TimmTrunk
from steerlens.encoders.timm_vit import VisionTransformerTrunk
from steerlens.errors import ModelError

_TRUNKS = (VisionTransformerTrunk, EvaTrunk)


def has_trunk(model: object) -> bool:
    """True if a model is of one of the classes that are known."""
    return any(trunk.accepts(model) for trunk in _TRUNKS)


def trunk_of(vit: Any, path: str) -> TimmTrunk:
    """Returns the trunk that reads a model.

    Args:
        vit: the model.
        path: its path in the model that the user gave, for messages.

    Raises:
        ModelError: if its class is not known, or it contains modules that are not known.
    """
    for trunk in _TRUNKS:
        if trunk.accepts(vit):
            return trunk(vit, path)
    known = ", ".join(trunk.native for trunk in _TRUNKS)
    raise ModelError(f"{path} is a {class_name(type(vit))}, which is not known; known: {known}.")


def architecture_of(vit: Any) -> str:
    """Returns timm's name of a model's architecture, or `timm`."""
    return str(_config(vit).get("architecture") or "timm")


def class_names(vit: Any) -> Sequence[str]:
    """Returns the names of a classifier's classes in its config, or else their numbers."""
    count, labels = vit.head.out_features, _config(vit).get("label_names")
    if isinstance(labels, list | tuple) and len(labels) == count:
        return [str(label) for label in labels]
    return [str(index) for index in range(count)]


def _config(vit: Any) -> Mapping[str, Any]:
    config = getattr(vit, "pretrained_cfg", None)
    return config if isinstance(config, dict) else {}
