"""Activation functions of sparse autoencoders, from the encoder's projection and bias to feature activations.

With p = (x - b) W_enc and bias b_enc, elementwise unless stated:

    relu         f = max(p + b_enc, 0)
    top_k        f = max(p + b_enc, 0) for the k largest of each token, else 0
    batch_top_k  f = max(p + b_enc, 0) where it exceeds one threshold θ, which training estimated, else 0
    jump_relu    f = max(p + b_enc, 0) where p + b_enc exceeds the feature's own threshold θ, else 0
    gated        f = max(p exp(r_mag) + b_enc, 0) where p + b_gate > 0, else 0

References: L. Gao et al., "Scaling and evaluating sparse autoencoders", arXiv 2406.04093; B. Bussmann et al.,
"BatchTopK Sparse Autoencoders", arXiv 2412.06410; S. Rajamanoharan et al., "Jumping Ahead", arXiv 2407.14435, and
"Improving Dictionary Learning with Gated Sparse Autoencoders", arXiv 2404.16014.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.errors import ModelError


@dataclass(frozen=True)
class ReLU:
    """The standard activation: every positive pre-activation is an activation."""

    name: ClassVar[str] = "relu"

    def __call__(self, projected: Float[Tensor, "*T F"], bias: Float[Tensor, "F"]) -> Float[Tensor, "*T F"]:
        """Returns `max(projected + bias, 0)`."""
        return (projected + bias).relu_()

    def check(self, n_features: int) -> None:
        """Fits any number of features."""


@dataclass(frozen=True)
class TopK:
    """The k largest pre-activations of each token, if they are positive.

    Attributes:
        k: number of features kept, from 1.
        rectify: whether negative ones among them become 0.
    """

    k: int
    rectify: bool = True
    name: ClassVar[str] = "top_k"

    def __call__(self, projected: Float[Tensor, "*T F"], bias: Float[Tensor, "F"]) -> Float[Tensor, "*T F"]:
        """Returns `max(projected + bias, 0)`, or `projected + bias`, at the k largest of each row, else 0."""
        values, indices = (projected + bias).topk(self.k, dim=-1, sorted=False)
        return torch.zeros_like(projected).scatter_(-1, indices, values.relu_() if self.rectify else values)

    def check(self, n_features: int) -> None:
        """Checks that there are k features.

        Raises:
            ModelError: if there are fewer, or k is below 1.
        """
        if not 1 <= self.k <= n_features:
            raise ModelError(f"its top-k activation keeps {self.k} features of {n_features}.")


@dataclass(frozen=True)
class BatchTopK:
    """Pre-activations above one threshold, which replaces the k largest of a training batch at inference.

    Attributes:
        k: mean number of features that training kept for each token; unused at inference.
        threshold: the threshold.
        inclusive: whether a pre-activation equal to the threshold is kept.
    """

    k: float
    threshold: float
    inclusive: bool = False
    name: ClassVar[str] = "batch_top_k"

    def __call__(self, projected: Float[Tensor, "*T F"], bias: Float[Tensor, "F"]) -> Float[Tensor, "*T F"]:
        """Returns `max(projected + bias, 0)` where it exceeds the threshold, else 0."""
        return _above((projected + bias).relu_(), self.threshold, self.inclusive)

    def check(self, n_features: int) -> None:
        """Fits any number of features.

        Raises:
            ModelError: if the threshold is not finite, which would silence all features.
        """
        if not math.isfinite(self.threshold):
            raise ModelError(f"its threshold is {self.threshold}.")


@dataclass(frozen=True, eq=False)
class JumpReLU:
    """Pre-activations above a threshold of each feature's own.

    Attributes:
        threshold: thresholds (F,).
        inclusive: whether a pre-activation equal to its threshold is kept.
    """

    threshold: Float[Tensor, "F"]
    inclusive: bool = False
    name: ClassVar[str] = "jump_relu"

    def __call__(self, projected: Float[Tensor, "*T F"], bias: Float[Tensor, "F"]) -> Float[Tensor, "*T F"]:
        """Returns `max(projected + bias, 0)` where `projected + bias` exceeds the thresholds, else 0."""
        return _above(projected + bias, self.threshold, self.inclusive).relu_()

    def check(self, n_features: int) -> None:
        """Checks that each feature has a threshold.

        Raises:
            ModelError: if not.
        """
        _fits("threshold", self.threshold, n_features)


@dataclass(frozen=True, eq=False)
class Gated:
    """A gate decides which features are active, a second path with the same weights how strongly.

    Attributes:
        b_gate: bias of the gate (F,).
        r_mag: logarithm of the magnitude path's scale (F,); that path's bias is the autoencoder's `b_enc`.
    """

    b_gate: Float[Tensor, "F"]
    r_mag: Float[Tensor, "F"]
    name: ClassVar[str] = "gated"

    def __call__(self, projected: Float[Tensor, "*T F"], bias: Float[Tensor, "F"]) -> Float[Tensor, "*T F"]:
        """Returns `max(projected * exp(r_mag) + bias, 0)` where `projected + b_gate > 0`, else 0."""
        return (projected * self.r_mag.exp() + bias).relu_() * (projected + self.b_gate > 0)

    def check(self, n_features: int) -> None:
        """Checks that each feature has a gate and a scale.

        Raises:
            ModelError: if not.
        """
        _fits("b_gate", self.b_gate, n_features)
        _fits("r_mag", self.r_mag, n_features)


Activation = ReLU | TopK | BatchTopK | JumpReLU | Gated
"""The activation of a sparse autoencoder."""

_A = TypeVar("_A", bound=Activation)


def tensors_of(activation: Activation) -> dict[str, Tensor]:
    """Returns the tensors of an activation by name."""
    return {name: value for name, value in vars(activation).items() if isinstance(value, Tensor)}


def converted(activation: _A, convert: Callable[[Tensor], Tensor]) -> _A:
    """Returns the activation with each of its tensors converted."""
    return replace(activation, **{name: convert(tensor) for name, tensor in tensors_of(activation).items()})


def of_features(activation: Activation, features: Int[Tensor, "N"]) -> Activation | None:
    """Returns the activation of some features alone; None if it depends on the others."""
    return None if isinstance(activation, TopK) else converted(activation, lambda tensor: tensor[features])


def _above(values: Tensor, threshold: float | Tensor, inclusive: bool) -> Tensor:
    return values * (values >= threshold if inclusive else values > threshold)


def _fits(name: str, tensor: Tensor, n_features: int) -> None:
    if tensor.shape != (n_features,):
        raise ModelError(f"its {name} has shape {tuple(tensor.shape)} for {n_features} features.")
