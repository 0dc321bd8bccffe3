"""Reader of plain safetensors files: `W_enc`, `W_dec`, `b_enc` and `b_dec`; the caller names site and activation."""

from pathlib import Path

import torch
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.saes.activations import Activation, Gated, JumpReLU, ReLU
from steerlens.saes.readers.shared import LIMIT, Given, refuse_left, take
from steerlens.saes.sae import SparseAutoencoder
from steerlens.storage import read_safetensors

_OPTIONAL = {"b_enc", "b_dec", "threshold", "b_gate", "r_mag", "b_mag"}


def read_plain(path: Path, given: Given) -> SparseAutoencoder:
    """Reads a plain safetensors file.

    Biases that it lacks are zeros. A `threshold` (F,) makes the activation jump-relu, and `b_gate`, `r_mag` and `b_mag`
    make it gated; any other is named by the caller.

    Raises:
        ModelError: if the file is damaged, lacks weights, or holds others.
        UsageError: if nothing names site or activation.
    """
    what = given.what
    tensors = read_safetensors(path, what, LIMIT)
    refuse_left(tensors, {"W_enc", "W_dec", *_OPTIONAL}, what)
    W_enc, W_dec = (take(tensors, name, what) for name in ("W_enc", "W_dec"))
    activation = _activation(tensors, given)
    bias = "b_mag" if isinstance(activation, Gated) else "b_enc"
    return SparseAutoencoder(
        given.name,
        given.place(None, path.name),
        W_enc,
        W_dec,
        take(tensors, bias, what, torch.zeros(W_enc.shape[-1])),
        take(tensors, "b_dec", what, torch.zeros(W_enc.shape[0])),
        activation,
        bool(given.apply_b_dec_to_input),
        trained_on=given.trained_on or "unknown",
    )


def _activation(tensors: dict[str, Tensor], given: Given) -> Activation:
    if given.activation is not None and not (isinstance(given.activation, ReLU) and "threshold" in tensors):
        return given.activation
    if "b_gate" in tensors:
        return Gated(take(tensors, "b_gate", given.what), take(tensors, "r_mag", given.what))
    if "threshold" in tensors:
        return JumpReLU(take(tensors, "threshold", given.what))
    raise UsageError(f"{given.what}: a plain file does not say which activation it has; name it: relu or top_k:32.")
