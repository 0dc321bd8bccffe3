"""Reader of SAELens folders: `cfg.json` and `sae_weights.safetensors`, of version 6 and of those before it.

Before version 6 the config is flat and names the activation; since then an architecture decides it and the place stands
under `metadata`. Batch-top-k autoencoders are saved by SAELens with thresholds, as jump-relu.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from torch import Tensor

from steerlens.errors import ModelError
from steerlens.saes.activations import Activation, Gated, JumpReLU, ReLU, TopK
from steerlens.saes.normalisation import Normalisation, NormalisationKind
from steerlens.saes.readers.shared import (
    LIMIT,
    Given,
    Place,
    field,
    folded_by_norm,
    hooked_site,
    refuse_left,
    space_of,
    take,
    unknown,
)
from steerlens.saes.sae import EMBEDDING, Space, SparseAutoencoder, TrainedOn
from steerlens.sites import Site
from steerlens.storage import read_json, read_safetensors

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"

_RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
_ARCHITECTURES = "standard, topk, batchtopk, jumprelu, gated"
_NORMALISATIONS = "none, layer_norm, constant_norm_rescale, expected_average_only_in"
_OWN = {"W_enc", "W_dec", "b_enc", "b_dec"}


def read_sae_lens(folder: Path, given: Given) -> SparseAutoencoder:
    """Reads a SAELens folder.

    Raises:
        ModelError: if a file is missing or damaged, or names something that is not known.
        UsageError: if nothing names its site.
    """
    what = given.what
    config = _config(read_json(folder / CONFIG, what))
    if not (folder / WEIGHTS).exists():
        raise ModelError(f"{what}: {folder} holds {CONFIG}, but no {WEIGHTS}.")
    tensors = read_safetensors(folder / WEIGHTS, what, LIMIT)
    architecture = field(config, "architecture", str, "standard", what)
    W_enc, W_dec, b_dec = (take(tensors, name, what) for name in ("W_enc", "W_dec", "b_dec"))
    _check_sizes(config, W_enc, what)
    activation, b_enc, used = _activation(architecture, config, tensors, what)
    if field(config, "rescale_acts_by_decoder_norm", bool, False, what):
        if architecture not in ("topk", "batchtopk"):
            raise unknown(what, "rescale_acts_by_decoder_norm with architecture", architecture, "topk, batchtopk")
        W_enc, b_enc, W_dec = folded_by_norm((W_enc, b_enc, W_dec))
    if "scaling_factor" in tensors:
        used.add("scaling_factor")
        if bool((take(tensors, "scaling_factor", what) - 1).abs().max() > 1e-5):
            W_dec = W_dec * _scaling(config, tensors, W_dec, what)
    refuse_left(tensors, used | _OWN - ({"b_enc"} if architecture == "gated" else set()), what)
    place, space = _place(config, what) if given.site is None else (given.site, given.space or _space(config))
    return SparseAutoencoder(
        given.name,
        given.place(place, CONFIG),
        W_enc,
        W_dec,
        b_enc,
        b_dec,
        given.activation or activation,
        field(config, "apply_b_dec_to_input", bool, True, what)
        if given.apply_b_dec_to_input is None
        else given.apply_b_dec_to_input,
        _normalisation(config, folder, given),
        given.trained_on or _trained_on(config),
        space,
    )


def _config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Makes a config flat and of current names."""
    metadata = raw.get("metadata")
    inner = cast(dict[str, Any], metadata) if isinstance(metadata, dict) else {}
    return {_RENAMED.get(key, key): value for key, value in {**inner, **raw}.items()}


def _check_sizes(config: Mapping[str, Any], W_enc: Tensor, what: str) -> None:
    for key, size in zip(("d_in", "d_sae"), W_enc.shape, strict=False):
        declared = config.get(key)
        if declared is not None and declared != size:
            raise ModelError(f"{what}: its config says {key} {declared}, and W_enc has shape {tuple(W_enc.shape)}.")


def _activation(
    architecture: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor], what: str
) -> tuple[Activation, Tensor, set[str]]:
    """Returns the activation, the encoder's bias and the names of the tensors that both use."""
    function = config.get("activation_fn", "relu")
    arguments = config.get("activation_fn_kwargs")
    own = cast(dict[str, Any], arguments) if isinstance(arguments, dict) else {}
    if architecture == "standard" and function == "topk":
        architecture = "topk"
    elif function != "relu" and not (architecture == "topk" and function == "topk"):
        raise unknown(what, "activation_fn", function, "relu, topk")
    if architecture == "gated":
        names = {"b_mag", "b_gate", "r_mag"}
        gated = Gated(take(tensors, "b_gate", what), take(tensors, "r_mag", what))
        return gated, take(tensors, "b_mag", what), names
    b_enc = take(tensors, "b_enc", what)
    if architecture == "standard":
        return ReLU(), b_enc, set()
    if architecture == "topk":
        return TopK(field({**own, **config}, "k", int, None, what)), b_enc, set()
    if architecture == "jumprelu":
        if "log_threshold" in tensors:
            return JumpReLU(take(tensors, "log_threshold", what).exp()), b_enc, {"log_threshold"}
        return JumpReLU(take(tensors, "threshold", what)), b_enc, {"threshold"}
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        # A checkpoint of training, not the inference model: one threshold for all features.
        threshold = take(tensors, "topk_threshold", what)
        return JumpReLU(threshold.expand_as(b_enc).clone()), b_enc, {"topk_threshold"}
    raise unknown(what, "architecture", architecture, _ARCHITECTURES)


def _scaling(config: Mapping[str, Any], tensors: Mapping[str, Tensor], W_dec: Tensor, what: str) -> Tensor:
    """Returns the factor of each decoder row that fine-tuning learned."""
    if not field(config, "finetuning_scaling_factor", bool, False, what):
        raise ModelError(f"{what}: its weights hold a scaling_factor, which its config does not say to use.")
    scaling = take(tensors, "scaling_factor", what)
    if scaling.shape != W_dec.shape[:1]:
        raise ModelError(f"{what}: scaling_factor has shape {tuple(scaling.shape)} for {len(W_dec)} features.")
    return scaling[:, None]


def _normalisation(config: Mapping[str, Any], folder: Path, given: Given) -> Normalisation:
    kind: object = config.get("normalize_activations")
    if isinstance(kind, bool):
        kind = "expected_average_only_in" if kind else "none"
    kinds: dict[str, NormalisationKind] = {
        "none": "none",
        "layer_norm": "layer_norm",
        "constant_norm_rescale": "unit_norm",
        "expected_average_only_in": "constant",
    }
    kind = "none" if kind is None else kind
    if not isinstance(kind, str) or kind not in kinds:
        raise unknown(given.what, "normalize_activations", kind, _NORMALISATIONS)
    if own := given.normalisation():
        return own
    return (
        Normalisation("constant", _factor(folder, given)) if kinds[kind] == "constant" else Normalisation(kinds[kind])
    )


def _factor(folder: Path, given: Given) -> float:
    """Returns the factor that brings inputs to a mean norm of √D, which SAELens keeps beside its checkpoints."""
    path = folder / "activation_scaler.json"
    if path.exists():
        factor = field(read_json(path, given.what), "scaling_factor", float, None, given.what)
        if 0 < factor < float("inf"):
            return factor
        raise ModelError(f"{given.what}: {path} holds the factor {factor}.")
    raise ModelError(
        f"{given.what}: its inputs were scaled by their mean norm (normalize_activations expected_average_only_in), "
        f"and the factor is not with its weights; give norm_factor (load_sae in Python), write {path.name} beside the "
        'weights ({"scaling_factor": FACTOR}), or save the autoencoder with the factor folded in.'
    )


def _space(config: Mapping[str, Any]) -> Space:
    return space_of(config.get("hook_name"))


def _trained_on(config: Mapping[str, Any]) -> TrainedOn:
    """Returns the tokens that `steerlens train sae` writes; SAELens itself names none."""
    return next((tokens for tokens in get_args(TrainedOn) if tokens == config.get("trained_on")), "unknown")


def _place(config: Mapping[str, Any], what: str) -> tuple[Place | None, Space]:
    name = config.get("hook_name")
    if name is None:
        return None, "residual"
    text, layer = field(config, "hook_name", str, None, what), config.get("hook_layer")
    text = text.replace("{layer}", str(layer))
    head = config.get("hook_head_index")
    place = hooked_site(text, what)
    if head is None:
        return place, _space(config)
    number = field(config, "hook_head_index", int, None, what)
    if place == EMBEDDING or place.kind != "attn_out" or number < 0:
        raise ModelError(f"{what}: hook_head_index {head} does not fit the hook {text!r}.")
    return Site("head", place.layer, number), _space(config)


def is_sae_lens(folder: Path) -> bool:
    """True for a folder with a config of SAELens."""
    return os.path.lexists(folder / CONFIG)  # a pipe or a broken link is told when it is read, not passed over
