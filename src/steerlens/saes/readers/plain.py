"""Reader of plain tensors `W_enc`, `W_dec`, `b_enc` and `b_dec`, in safetensors or a state dict.

The caller names site and activation.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.saes.activations import Activation, Gated, JumpReLU, tensors_of
from steerlens.saes.normalisation import Normalisation
from steerlens.saes.readers.shared import Given, refuse_left, take
from steerlens.saes.sae import SparseAutoencoder


def read_plain(tensors: Mapping[str, Tensor], given: Given) -> SparseAutoencoder:
    """Reads plain tensors.

    Biases that are missing are zeros. A `threshold` (F,) makes the activation jump-relu, and `b_gate`, `r_mag` and
    `b_mag` make it gated; any other is named by the caller.

    Raises:
        ModelError: if weights are missing, or there are others.
        UsageError: if nothing names site or activation.
    """
    what = given.what
    W_enc, W_dec = (take(tensors, name, what) for name in ("W_enc", "W_dec"))
    activation = _activation(tensors, given)
    bias = "b_mag" if isinstance(activation, Gated) else "b_enc"
    refuse_left(tensors, {"W_enc", "W_dec", "b_enc", "b_dec", bias, *tensors_of(activation)}, what)
    return SparseAutoencoder(
        given.name,
        given.place(None, "a plain file"),
        W_enc,
        W_dec,
        take(tensors, bias, what, torch.zeros(W_enc.shape[-1])),
        take(tensors, "b_dec", what, torch.zeros(W_enc.shape[0])),
        activation,
        bool(given.apply_b_dec_to_input),
        given.normalisation() or Normalisation(),
        given.trained_on or "unknown",
        given.space or "residual",
    )


def _activation(tensors: Mapping[str, Tensor], given: Given) -> Activation:
    own: Activation | None = None
    if "b_gate" in tensors:
        own = Gated(take(tensors, "b_gate", given.what), take(tensors, "r_mag", given.what))
    elif "threshold" in tensors:
        own = JumpReLU(take(tensors, "threshold", given.what))
    if own is not None and given.activation is not None and type(own) is not type(given.activation):
        raise UsageError(
            f"{given.what}: its tensors make it {own.name}, and {given.activation.name} was given; leave one out."
        )
    activation = given.activation or own
    if activation is None:
        raise UsageError(f"{given.what}: a plain file does not say which activation it has; name it: relu or top_k:32.")
    return activation
