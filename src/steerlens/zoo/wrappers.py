"""Taking a native model out of what training libraries wrap around it, adapters of PEFT merged into its weights.

Classes are recognised by name, since none of these libraries need be installed.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from torch import nn

from steerlens.errors import ModelError

_INSIDE: Mapping[tuple[str, str], str] = {
    ("torch", "DataParallel"): "module",
    ("torch", "DistributedDataParallel"): "module",
    ("torch", "AveragedModel"): "module",
    ("torch", "OptimizedModule"): "_orig_mod",
    ("lightning", "_FabricModule"): "module",
    ("lightning_fabric", "_FabricModule"): "module",
    ("transformers", "TimmWrapperModel"): "timm_model",
    ("transformers", "TimmWrapperForImageClassification"): "timm_model",
}
"""Attribute that holds the wrapped model, by library and class of the wrapper."""


def unwrapped(model: nn.Module, supported: Callable[[nn.Module], bool]) -> nn.Module:
    """Returns the native model in data-parallel, compiled, Lightning and PEFT wrappers, however they are nested.

    Args:
        model: a native model, or a wrapper of one; it is not changed, since adapters of PEFT are merged in a copy.
        supported: whether an adapter of this package takes a native model.

    Raises:
        ModelError: if weights are spread over devices, adapters cannot be merged, or a Lightning module holds no model
            that is supported, or several.
    """
    while not supported(model):
        kinds = [(base.__module__.partition(".")[0], base.__name__) for base in type(model).__mro__]
        inside = next((_INSIDE[kind] for kind in kinds if kind in _INSIDE), None)
        if ("torch", "FullyShardedDataParallel") in kinds:
            raise ModelError(
                "weights of the model are spread over devices (FullyShardedDataParallel): gather its state_dict and "
                "load it into the plain model."
            )
        if inside is not None:
            model = cast(nn.Module, getattr(model, inside))
        elif any(kind in kinds for kind in (("peft", "PeftModel"), ("peft", "PeftMixedModel"))):
            model = _merged(model)
        elif any(name == "LightningModule" for _, name in kinds):
            model = _only_model(model, supported)
        else:
            return model
    return model


def _merged(model: Any) -> nn.Module:
    """Returns a copy of the model below adapters of PEFT, with the active ones merged into its weights."""
    name = getattr(next(iter(model.peft_config.values()), None), "peft_type", "unknown")
    kind = str(getattr(name, "value", name))
    try:
        return copy.deepcopy(model).merge_and_unload(safe_merge=True)
    except Exception as error:  # methods without weights to merge raise errors of several kinds
        raise ModelError(
            f"adapters of PEFT ({kind}) cannot be merged into the model: {' '.join(str(error).split())[:200]} "
            "Only adapters that change weights, such as LoRA, are supported; merge them yourself, and give the result."
        ) from error


def _only_model(module: nn.Module, supported: Callable[[nn.Module], bool]) -> nn.Module:
    """Returns the only supported model that a Lightning module holds, which may itself be wrapped."""
    found = dict(_outermost(module, "", supported))
    if len(found) == 1:
        return next(iter(found.values()))
    what = f"holds several models ({', '.join(found)})" if found else "holds no model that is supported"
    raise ModelError(f"{type(module).__name__} {what}: give the model itself, one of its attributes.")


def _outermost(module: nn.Module, path: str, supported: Callable[[nn.Module], bool]) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        where = f"{path}{name}"
        inner = unwrapped(child, supported)
        if supported(inner):
            yield where, inner
        else:
            yield from _outermost(child, f"{where}.", supported)
