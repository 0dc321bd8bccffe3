"""The map of a bridge from one embedding space to another: linear, optionally with a kernel part.

B(x) = m_y + (x - m_x) W                                            ridge, Procrustes
B(x) = m_y + (x - m_x) W + Σ_k A_k / (1 + t |x - m_x - c_k|²)       kernel
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import ModelError

Kind = Literal["ridge", "procrustes", "kernel"]


def similarities(
    centred: Float[Tensor, "*N E"], centres: Float[Tensor, "K E"], scale: Float[Tensor, ""]
) -> Float[Tensor, "*N K"]:
    """Computes `1 / (1 + scale |z - c|²)` of centred embeddings z and centres c: 1 at a centre, 0 far away."""
    squares = centred.square().sum(dim=-1, keepdim=True) + centres.square().sum(dim=-1)
    return 1 / (1 + scale * (squares - 2 * centred @ centres.T).clamp_min(0))


@dataclass(frozen=True, eq=False)
class Kernel:
    """The nonlinear part of a bridge: `Σ_k similarity(z, c_k) A_k` of a centred embedding z.

    Attributes:
        centres: c, centred embeddings of K pictures.
        weights: A, the addition of each centre.
        scale: decay of the similarity with the squared distance.
    """

    centres: Float[Tensor, "K E"]
    weights: Float[Tensor, "K F"]
    scale: Float[Tensor, ""]

    def __call__(self, centred: Float[Tensor, "*N E"]) -> Float[Tensor, "*N F"]:
        """Computes the kernel part for centred embeddings."""
        near = similarities(centred, self.centres.to(centred), self.scale.to(centred))
        return near @ self.weights.to(centred)


@dataclass(frozen=True, eq=False)
class Bridge:
    """A map from the embeddings of one encoder, of size E, to those of another, of size F.

    Attributes:
        kind: kind of the fit.
        source_mean: m_x.
        target_mean: m_y.
        weight: W.
        kernel: the kernel part, for kind `kernel`.

    Raises:
        ModelError: if the sizes of the parts do not fit, or a number is not finite.
    """

    kind: Kind
    source_mean: Float[Tensor, "E"]
    target_mean: Float[Tensor, " F"]
    weight: Float[Tensor, "E F"]
    kernel: Kernel | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or (self.kernel is not None) != (self.kind == "kernel"):
            raise ModelError(f"a bridge of kind {self.kind!r} with these parts is not known.")
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors().items()}
        E, F = (*shapes["weight"], 0, 0)[:2]
        wanted: dict[str, tuple[int, ...]] = {"source_mean": (E,), "target_mean": (F,), "weight": (E, F)}
        if self.kernel is not None:
            K = len(self.kernel.centres)
            wanted |= {"centres": (K, E), "weights": (K, F), "scale": ()}
        if shapes != wanted:
            raise ModelError(f"the parts of a bridge do not fit each other: {shapes}.")
        if not all(bool(torch.isfinite(tensor).all()) for tensor in self.tensors().values()):
            raise ModelError("a bridge holds numbers that are not finite; fit it again.")

    @property
    def source_size(self) -> int:
        """E."""
        return self.weight.shape[0]

    @property
    def target_size(self) -> int:
        """F."""
        return self.weight.shape[1]

    def __call__(self, embeddings: Float[Tensor, "*N E"]) -> Float[Tensor, "*N F"]:
        """Maps embeddings of the first encoder to the second's space, in their own precision; gradients flow.

        The computation is in at least float32, the precision of the bridge.
        """
        precise = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
        centred = precise - self.source_mean.to(precise)
        mapped = centred @ self.weight.to(precise) + self.target_mean.to(precise)
        if self.kernel is not None:
            mapped = mapped + self.kernel(centred)
        return mapped.to(embeddings.dtype)

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> "Bridge":
        """Returns the bridge on another device or in another precision."""
        return bridge_from(self.kind, {name: part.to(device, dtype) for name, part in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Returns its parts by name."""
        parts = {"source_mean": self.source_mean, "target_mean": self.target_mean, "weight": self.weight}
        if self.kernel is not None:
            parts |= vars(self.kernel)
        return parts


def bridge_from(kind: str, tensors: Mapping[str, Tensor]) -> Bridge:
    """Builds a bridge from the parts of `Bridge.tensors`.

    Raises:
        ModelError: if a part is missing or does not fit.
    """
    linear = ("source_mean", "target_mean", "weight")
    curved = ("centres", "weights", "scale") if kind == "kernel" else ()
    if set(tensors) != {*linear, *curved}:
        raise ModelError(f"a bridge of kind {kind!r} is made of other parts than {', '.join(sorted(tensors))}.")
    kernel = Kernel(*(tensors[name] for name in curved)) if curved else None
    source_mean, target_mean, weight = (tensors[name] for name in linear)
    return Bridge(cast(Kind, kind), source_mean, target_mean, weight, kernel)
