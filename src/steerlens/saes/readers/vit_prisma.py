"""Reader of ViT-Prisma folders: `config.json` and the weights as a `.pt` state dict.

The decoder's bias is subtracted from the normalised input. Files that also hold a config object (`cfg`, `state_dict`)
are pickles of code, and refused.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from steerlens.errors import ModelError
from steerlens.saes.activations import Activation, Gated, ReLU, TopK
from steerlens.saes.normalisation import Normalisation
from steerlens.saes.readers.shared import (
    LIMIT,
    Given,
    Place,
    field,
    hooked_site,
    refuse_left,
    space_of,
    state_dict,
    take,
    unknown,
)
from steerlens.saes.sae import Space, SparseAutoencoder, TrainedOn
from steerlens.sites import Site
from steerlens.storage import read_json, read_pytorch, read_safetensors

CONFIG = "config.json"

_KEYS = ("hook_point_layer", "layer_subtype", "activation_fn_str")


def is_vit_prisma(folder: Path, what: str) -> bool:
    """True for a folder with a config of a ViT-Prisma autoencoder."""
    return os.path.lexists(folder / CONFIG) and any(key in read_json(folder / CONFIG, what) for key in _KEYS)


def read_vit_prisma(path: Path, given: Given) -> SparseAutoencoder:
    """Reads a ViT-Prisma folder, or one weight file in it.

    Raises:
        ModelError: if files are missing, damaged or pickled, or name something that is not known.
    """
    what = given.what
    folder = path if path.is_dir() else path.parent
    config = read_json(folder / CONFIG, what)
    if field(config, "is_transcoder", bool, False, what):
        raise ModelError(f"{what}: it is a transcoder, which writes at another place than it reads; not supported.")
    tensors = _weights(path if path.is_file() else _only_file(folder, what), what)
    gated = field(config, "architecture", str, "standard", what) == "gated"
    refuse_left(tensors, {"W_enc", "W_dec", "b_enc", "b_dec", *(("b_gate", "b_mag", "r_mag") if gated else ())}, what)
    place, space = _place(config, what) if given.site is None else (given.site, given.space or _space(config))
    return SparseAutoencoder(
        given.name,
        given.place(place, CONFIG),
        take(tensors, "W_enc", what),
        take(tensors, "W_dec", what),
        take(tensors, "b_mag" if gated else "b_enc", what),
        take(tensors, "b_dec", what),
        given.activation or _activation(config, tensors, what),
        True if given.apply_b_dec_to_input is None else given.apply_b_dec_to_input,
        given.normalisation() or _normalisation(config, what),
        given.trained_on or _trained_on(config, what),
        space,
    )


def _only_file(folder: Path, what: str) -> Path:
    files = sorted(folder.glob("*.pt")) or sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        names = ", ".join(file.name for file in files)
        raise ModelError(
            f"{what}: {folder} holds several weight files ({names}); give the path of one."
            if files
            else f"{what}: {folder} holds {CONFIG}, but no .pt or .safetensors file."
        )
    return files[0]


def _weights(path: Path, what: str) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_safetensors(path, what, LIMIT)
    content = read_pytorch(path, what, LIMIT)
    inner = cast(Mapping[str, Any], content).get("state_dict") if isinstance(content, Mapping) else None
    return state_dict(content if inner is None else inner, what)


def _activation(config: Mapping[str, Any], tensors: Mapping[str, Tensor], what: str) -> Activation:
    function = field(config, "activation_fn_str", str, "relu", what)
    architecture = field(config, "architecture", str, "standard", what)
    if architecture not in ("standard", "gated"):
        raise unknown(what, "architecture", architecture, "standard, gated")
    if architecture == "gated":
        if function != "relu":
            raise unknown(what, "activation of a gated architecture", function, "relu")
        return Gated(take(tensors, "b_gate", what), take(tensors, "r_mag", what))
    if function == "relu":
        return ReLU()
    if function == "topk":
        arguments = field(config, "activation_fn_kwargs", dict, {}, what)
        if left := set(arguments) - {"k"}:
            raise unknown(what, "activation_fn_kwargs", sorted(left), "k")
        return TopK(field(arguments, "k", int, None, what))
    raise unknown(what, "activation_fn_str", function, "relu, topk")


def _normalisation(config: Mapping[str, Any], what: str) -> Normalisation:
    # Configs that lack the field come from versions without normalisation.
    kind = config.get("normalize_activations")
    if kind in (None, "none"):
        return Normalisation()
    if kind == "layer_norm":
        return Normalisation("layer_norm")
    if kind == "constant_norm_rescale":
        return Normalisation("unit_norm")
    raise unknown(what, "normalize_activations", kind, "none, layer_norm, constant_norm_rescale")


def _trained_on(config: Mapping[str, Any], what: str) -> TrainedOn:
    if field(config, "cls_token_only", bool, False, what):
        return "cls"
    return "patch" if field(config, "use_patches_only", bool, False, what) else "all"


def _space(config: Mapping[str, Any]) -> Space:
    return space_of(config.get("layer_subtype"))


def _place(config: Mapping[str, Any], what: str) -> tuple[Place | None, Space]:
    layer = config.get("hook_point_layer")
    layers = cast(list[Any], layer) if isinstance(layer, list) else [layer]
    if layer is None or len(layers) != 1:
        return None, "residual"
    name = field(config, "layer_subtype", str, "hook_resid_post", what)
    place = hooked_site(f"blocks.{layers[0]}.{name}", what)
    space = _space(config)
    head = config.get("hook_point_head_index")
    if head is None:
        return place, space
    if not isinstance(place, Site) or place.kind != "attn_out":
        raise ModelError(f"{what}: hook_point_head_index {head!r} does not fit the hook {name!r}.")
    return Site("head", place.layer, field(config, "hook_point_head_index", int, None, what)), space
