"""Adapters by name: those of this package and those that other packages register as entry points.

An encoder adapter is a class. `accepts(model)` is True for native models that it supports, and calling it with the
model, its image processor and a name gives the encoder. It may also define how a folder is loaded: by
`loading(config, weights)` for models of transformers, or by `from_folder(folder, ...)` if it `opens(folder)`.
"""

import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from steerlens.errors import ModelError

Group = Literal["steerlens.encoders", "steerlens.decoders"]

_OURS: Mapping[Group, Mapping[str, str]] = {
    "steerlens.encoders": {
        "clip": "steerlens.encoders.clip:CLIPEncoder",
        "clip_vision": "steerlens.encoders.towers:CLIPVisionEncoder",
        "llava": "steerlens.encoders.llava:LLaVAEncoder",
        "qwen2_5_vl": "steerlens.encoders.qwen25_vl:Qwen25VLEncoder",
        "qwen3_vl": "steerlens.encoders.qwen_vl:Qwen3VLEncoder",
        "tipsv2": "steerlens.encoders.tipsv2:TIPSv2Encoder",
        "metaclip_2": "steerlens.encoders.clip:MetaCLIP2Encoder",
        "siglip": "steerlens.encoders.siglip:SigLIPEncoder",
        "siglip2": "steerlens.encoders.siglip2:SigLIP2Encoder",
        "vit": "steerlens.encoders.vit:ViTEncoder",
        "deit": "steerlens.encoders.deit:DeiTEncoder",
        "vit_mae": "steerlens.encoders.vit_mae:ViTMAEEncoder",
        "dinov2": "steerlens.encoders.dinov2:DINOv2Encoder",
        "dinov2_with_registers": "steerlens.encoders.dinov2:DINOv2RegistersEncoder",
        "dinov3_vit": "steerlens.encoders.dinov3:DINOv3Encoder",
        "aimv2": "steerlens.encoders.aimv2:AIMv2Encoder",
        "timm": "steerlens.encoders.timm:TimmEncoder",
        "open_clip": "steerlens.encoders.open_clip:OpenCLIPEncoder",
        "open_clip_timm": "steerlens.encoders.open_clip:OpenCLIPTimmEncoder",
    },
    "steerlens.decoders": {
        "kandinsky-2.2": "steerlens.decoders.kandinsky22:Kandinsky22Decoder",
        "kandinsky-2.1": "steerlens.decoders.kandinsky21:Kandinsky21Decoder",
        "stable-unclip-2.1": "steerlens.decoders.stable_unclip:StableUnCLIPDecoder",
        "karlo": "steerlens.decoders.karlo:KarloDecoder",
        "sd-image-variations": "steerlens.decoders.sd_image_variations:SDImageVariationsDecoder",
        "ip-adapter-sd15": "steerlens.decoders.ip_adapter:IPAdapterDecoder",
        "ip-adapter-plus-sd15": "steerlens.decoders.ip_adapter:IPAdapterPlusDecoder",
        "ip-adapter-sdxl": "steerlens.decoders.ip_adapter:IPAdapterXLDecoder",
        "rae-dinov2": "steerlens.decoders.rae:RAEDecoder",
        "rae-siglip2": "steerlens.decoders.rae:RAEDecoder",
        "rae-mae": "steerlens.decoders.rae:RAEDecoder",
        "vit-mae": "steerlens.decoders.vit_mae:ViTMAEDecoder",
        "flux-redux": "steerlens.decoders.flux_redux:FluxReduxDecoder",
        "neighbours": "steerlens.decoders.neighbours:NeighboursDecoder",
    },
}
"""Adapters of this package, listed here too, so that a checkout works without being installed."""


def registered(group: Group) -> dict[str, str]:
    """Returns the location of each adapter of a group, `module:attribute`, by name.

    Raises:
        ModelError: if two packages register different adapters under one name.
    """
    adapters = dict(_OURS[group])
    for entry in entry_points(group=group):
        if adapters.setdefault(entry.name, entry.value) != entry.value:
            raise ModelError(
                f"{group}: {entry.name!r} is registered twice, as {adapters[entry.name]} and as {entry.value}; "
                "uninstall one of the two packages."
            )
    return adapters


def adapter(group: Group, name: str) -> Any:
    """Imports the adapter class of a name.

    Raises:
        ModelError: if there is none, or it cannot be imported.
    """
    known = registered(group)
    if name not in known:
        raise ModelError(f"no adapter is called {name!r} in {group}; known are {', '.join(known)}.")
    return _imported(group, name, known[name])


def _imported(group: Group, name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"{group}: the adapter {name!r} cannot be loaded: {error}.") from error


def encoder_adapters(failed: dict[str, str] | None = None) -> Iterator[Any]:
    """Yields every encoder adapter that can be imported; those of missing libraries are skipped.

    Args:
        failed: filled with name -> reason for adapters that cannot be imported.
    """
    for name, place in registered("steerlens.encoders").items():
        try:
            yield _imported("steerlens.encoders", name, place)
        except ModelError as error:
            if failed is not None:
                failed[name] = str(error.__cause__ or error)


def adapter_for(native: object) -> Any:
    """Returns the encoder adapter that accepts a native model.

    Raises:
        ModelError: if no adapter does.
    """
    failed: dict[str, str] = {}
    for candidate in encoder_adapters(failed):
        if candidate.accepts(native):
            return candidate
    known = ", ".join(name for name in registered("steerlens.encoders") if name not in failed)
    broken = "".join(f" {name} is registered and cannot be loaded: {why}." for name, why in failed.items())
    raise ModelError(f"no encoder adapter takes a {type(native).__name__}; there are adapters for {known}.{broken}")


def loading_for(config: Mapping[str, Any], weights: Mapping[str, tuple[int, ...]]) -> Any:
    """Returns an encoder adapter's recipe for loading a folder's model (`Loading`), or None if none supports it.

    Args:
        config: content of the folder's `config.json`.
        weights: shapes of its weights, by name.
    """
    for candidate in encoder_adapters():
        recipe = candidate.loading(config, weights) if hasattr(candidate, "loading") else None
        if recipe is not None:
            return recipe
    return None


def opener_for(folder: Path) -> Any:
    """Returns the encoder adapter that opens a folder by itself, or None."""
    openers = (candidate for candidate in encoder_adapters() if hasattr(candidate, "opens"))
    return next((candidate for candidate in openers if candidate.opens(folder)), None)
