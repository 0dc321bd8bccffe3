"""Reader of Overcomplete modules and state dicts: `TopKSAE`, `BatchTopKSAE`, `JumpSAE`, `RATopKSAE` and their bases.

Their encoder is one linear layer, with or without a batch norm, or tied to the dictionary; they have no decoder bias. A
dictionary is normalised when it is used, a relaxed archetypal one is `(W C + Λ) exp(multiplier)`. A state dict holds
neither k nor the threshold of batch-top-k, so the caller gives the activation with it.

References: T. Fel et al., "Archetypal SAE", arXiv 2502.12892.
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.errors import ModelError, UsageError
from steerlens.saes.activations import Activation, BatchTopK, JumpReLU, ReLU, TopK
from steerlens.saes.normalisation import Normalisation
from steerlens.saes.readers.shared import Given, refuse_left, take
from steerlens.saes.sae import SparseAutoencoder

DictionaryNorm = Literal["l2", "max_l2", "l1", "max_l1", "identity"]

_KINDS = ("SAE", "TopKSAE", "BatchTopKSAE", "JumpSAE", "RATopKSAE", "RAJumpSAE")
_EPSILON = 1e-8
_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
_ROW_NORM = 1e-4
"""Largest distance of a row's norm from 1 at which a stored dictionary counts as normalised."""


def is_overcomplete(tensors: Mapping[str, Tensor]) -> bool:
    """True for a state dict with a dictionary layer."""
    return any(name.startswith("dictionary.") for name in tensors)


@torch.no_grad()
def read_overcomplete_module(module: nn.Module, given: Given) -> SparseAutoencoder:
    """Reads a module of Overcomplete; the module is not changed.

    Raises:
        ModelError: if it is of another class, or its encoder is not known.
        UsageError: if the caller names no site.
    """
    what, kind = given.what, type(module).__name__
    if kind not in _KINDS:
        raise ModelError(f"{what}: a module {kind} is not known; known are {', '.join(_KINDS)} of Overcomplete.")
    native = cast(Any, module)
    final = getattr(native.encoder, "final_activation", None)
    if final is not None and not isinstance(final, nn.ReLU):
        raise ModelError(f"{what}: its encoder ends in {type(final).__name__}, where ReLU is known.")
    tensors = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    layer = native.dictionary
    if hasattr(layer, "Relax"):
        rows = _archetypal(tensors, what, float(layer.delta))
    else:
        rows = cast(Tensor, layer.normalization(take(tensors, "dictionary._weights", what))) * _scale(tensors, what)
    return _autoencoder(tensors, rows, given.activation or _activation(native, kind, what), given, _epsilon(native))


def read_overcomplete_tensors(
    tensors: Mapping[str, Tensor], given: Given, dictionary_norm: DictionaryNorm | None
) -> SparseAutoencoder:
    """Reads a state dict of Overcomplete.

    Args:
        tensors: the state dict.
        given: settings of the caller; the activation, unless there are thresholds.
        dictionary_norm: normalisation of the dictionary, which a state dict does not name; None if rows have norm 1.

    Raises:
        ModelError: if it holds what is not known.
        UsageError: if the caller names no site, activation, or normalisation of the dictionary.
    """
    what = given.what
    if "dictionary.Relax" in tensors:
        rows = _archetypal(tensors, what, None)
    else:
        rows = _normalised(take(tensors, "dictionary._weights", what), dictionary_norm, what) * _scale(tensors, what)
    activation = given.activation
    if "thresholds" in tensors:
        activation = _jump(take(tensors, "thresholds", what))
    if activation is None:
        raise UsageError(
            f"{what}: a state dict of Overcomplete does not hold its activation; give top_k:K, batch_top_k:THRESHOLD "
            "or relu, or the module itself."
        )
    if isinstance(activation, BatchTopK):
        activation = BatchTopK(activation.k, activation.threshold, inclusive=True)
    return _autoencoder(tensors, rows, activation, given, 1e-5)


def _activation(module: Any, kind: str, what: str) -> Activation:
    if kind == "SAE":
        return ReLU()
    if kind.endswith("JumpSAE"):
        return _jump(module.thresholds.detach())
    if kind == "BatchTopKSAE":
        if module.running_threshold is None:
            raise ModelError(f"{what}: its running threshold was never set; train it, or set running_threshold.")
        return BatchTopK(float(module.top_k), float(module.running_threshold), inclusive=True)
    return TopK(int(module.top_k))


def _jump(thresholds: Tensor) -> JumpReLU:
    return JumpReLU(thresholds.float().exp(), inclusive=True)


def _scale(tensors: Mapping[str, Tensor], what: str) -> Tensor:
    return take(tensors, "dictionary.multiplier", what, torch.zeros(())).exp()


def _archetypal(tensors: Mapping[str, Tensor], what: str, delta: float | None) -> Float[Tensor, "F D"]:
    """Computes a relaxed archetypal dictionary: rows are means of points, moved by at most delta."""
    weights = take(tensors, "dictionary.W", what).relu()
    weights = weights / (weights.sum(dim=-1, keepdim=True) + _EPSILON)
    moved = take(tensors, "dictionary.Relax", what)
    if delta is not None:
        moved = moved * (delta / moved.norm(dim=-1, keepdim=True)).clamp(max=1)
    return (weights @ take(tensors, "dictionary.C", what) + moved) * _scale(tensors, what)


def _normalised(rows: Tensor, norm: DictionaryNorm | None, what: str) -> Float[Tensor, "F D"]:
    if norm == "identity":
        return rows
    lengths = rows.norm(p=1 if norm in ("l1", "max_l1") else 2, dim=1, keepdim=True)
    if norm in ("max_l2", "max_l1"):
        return rows / lengths.amax(dim=0, keepdim=True)
    if norm is None and bool((lengths - 1).abs().max() > _ROW_NORM):
        raise UsageError(
            f"{what}: rows of its dictionary are stored as they were before normalisation, which a state dict does not "
            "name; give dictionary_norm (load_sae in Python; l2 is Overcomplete's default), or the module itself."
        )
    return rows / (lengths + _EPSILON)


def _autoencoder(
    tensors: Mapping[str, Tensor], rows: Float[Tensor, "F D"], activation: Activation, given: Given, epsilon: float
) -> SparseAutoencoder:
    W_enc, b_enc, used = _encoder(tensors, rows, given.what, epsilon)
    own = {"dictionary._weights", "dictionary.multiplier", "dictionary.W", "dictionary.C", "dictionary.Relax"}
    refuse_left(tensors, used | own | {"thresholds"}, given.what)
    return SparseAutoencoder(
        given.name,
        given.place(None, "a module of Overcomplete"),
        W_enc,
        rows,
        b_enc,
        torch.zeros(rows.shape[1]),
        activation,
        False,
        given.normalisation() or Normalisation(),
        given.trained_on or "unknown",
        given.space or "residual",
    )


def _encoder(
    tensors: Mapping[str, Tensor], rows: Tensor, what: str, epsilon: float
) -> tuple[Float[Tensor, "D F"], Float[Tensor, "F"], set[str]]:
    """Returns weight and bias of the encoder, and the names of the tensors that it uses."""
    F = len(rows)
    if any(name.startswith("encoder.mlp_blocks.") for name in tensors):
        raise ModelError(f"{what}: its encoder has hidden layers, which no linear encoder equals.")
    tied = {name for name in tensors if name.startswith("encoder.tied_to.")}
    if "encoder.final_block.0.weight" not in tensors:
        bias = take(tensors, "encoder.bias", what, torch.zeros(F))
        weight = rows if tied else take(tensors, "encoder.weight", what)
        return weight.T.contiguous(), bias, {"encoder.bias", "encoder.weight", *tied}
    weight = take(tensors, "encoder.final_block.0.weight", what)
    bias = take(tensors, "encoder.final_block.0.bias", what, torch.zeros(F))
    used = {"encoder.final_block.0.weight", "encoder.final_block.0.bias"}
    norm = {name: f"encoder.final_block.1.{name}" for name in _BATCH_NORM}
    if not any(name.startswith("encoder.final_block.1.") for name in tensors):
        return weight.T.contiguous(), bias, used
    if norm["running_var"] not in tensors:
        raise ModelError(f"{what}: its encoder ends in a norm of each token, which no linear encoder equals.")
    mean, var = (take(tensors, norm[name], what) for name in ("running_mean", "running_var"))
    gain = take(tensors, norm["weight"], what, torch.ones(F)) / (var + epsilon).sqrt()
    shift = take(tensors, norm["bias"], what, torch.zeros(F))
    used |= {*norm.values(), "encoder.final_block.1.num_batches_tracked"}
    return (weight * gain[:, None]).T.contiguous(), (bias - mean) * gain + shift, used


def _epsilon(module: Any) -> float:
    block = getattr(module.encoder, "final_block", None)
    return float(getattr(block[1], "eps", 1e-5)) if isinstance(block, nn.Sequential) and len(block) > 1 else 1e-5
