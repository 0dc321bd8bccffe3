"""Interventions as data: what to change at which site of a forward pass.

Every intervention maps the value `v` at a site in the running forward pass to a new value `v' = f(v)`, in the space of
the residual stream (width D). `encoders.hooks` applies them to the native model: at a head, `v` is the
head's write `z_h W_O^h`, and the change `v' - v` is added to the attention output; everything downstream reacts.
"""

from dataclasses import dataclass, fields
from numbers import Real
from operator import index
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.sites import Site, SiteLike, as_site


class _SiteField:
    """Field of a dataclass that holds a site, and is given a site or its text form."""

    def __get__(self, instance: "Intervention | None", owner: type | None = None) -> Site:
        if instance is None:
            raise AttributeError  # tells `dataclass` that there is no default
        return vars(instance)["site"]

    def __set__(self, instance: "Intervention", value: SiteLike) -> None:
        vars(instance)["site"] = as_site(value)


@dataclass(frozen=True, eq=False, repr=False)
class Intervention:
    """A change of the value at one site; subclasses define the new value.

    Attributes:
        site: a place in the model to act on, or its text form such as `L3H4`. Directions, groups and regions are not
            places; add them with `Add` at a site of the residual stream.
        tokens: token positions to act on; None for all.
    """

    site: _SiteField = _SiteField()
    tokens: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.tokens is not None:
            object.__setattr__(self, "tokens", _positions(self))

    def __repr__(self) -> str:
        values = ((field.name, getattr(self, field.name)) for field in fields(self) if field.name != "site")
        told = [f"{name}={_short(value)}" for name, value in values if value is not None]
        return f"{type(self).__name__}({', '.join([str(self.site), *told])})"

    @property
    def reads_head_values(self) -> bool:
        """True if it changes head values before their output projection, by `through_heads`, in place of a write."""
        return False

    def new_value(self, value: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Returns the replacement of `value`; its shape broadcasts to that of `value`."""
        raise NotImplementedError(type(self).__name__)

    def through_heads(
        self, values: Float[Tensor, "B T d"], weights: Float[Tensor, "d D"]
    ) -> tuple[Float[Tensor, "B T d"], Float[Tensor, "B T D"]]:
        """Changes head values, of one head or of all concatenated.

        Args:
            values: the head values.
            weights: their output projection.

        Returns:
            The new head values, and what is added to the write besides their projection.
        """
        raise NotImplementedError(type(self).__name__)

    def apply(self, value: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Replaces the value at the chosen tokens; the others stay unchanged."""
        if self.tokens is None:
            return self.new_value(value).to(value.dtype).expand_as(value)
        selected = value[:, list(self.tokens)]
        changed = value.clone()
        changed[:, list(self.tokens)] = self.new_value(selected).to(value.dtype).expand_as(selected)
        return changed


@dataclass(frozen=True, eq=False, repr=False)
class Scale(Intervention):
    """Multiplies by `factor`: one number, or one per picture of the batch, (B,), or per picture and token, (B,T).

    Steering is `Scale` with s > 1.
    """

    factor: float | Float[Tensor, "B"] | Float[Tensor, "B T"] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        factor: Any = self.factor
        if isinstance(factor, np.ndarray):
            object.__setattr__(self, "factor", torch.from_numpy(factor))
        elif not isinstance(factor, Tensor | Real):
            raise UsageError(f"Scale at {self.site} takes a number or a tensor of factors, not {factor!r}.")

    def new_value(self, value: Tensor) -> Tensor:
        """Returns `factor * value`.

        Raises:
            UsageError: if the factors are neither one number, nor one per picture, nor one per picture and token.
        """
        factor = self.factor
        if not isinstance(factor, Tensor):
            return value * factor
        if factor.ndim == 2 and factor.shape == value.shape[:2]:
            return value * factor.to(value.device)[..., None]
        if factor.ndim > 1 or factor.numel() not in (1, value.shape[0]):
            raise UsageError(
                f"Scale at {self.site}: factors of shape {tuple(factor.shape)} do not fit {value.shape[0]} pictures; "
                "give one number, or one per picture, or one per picture and token."
            )
        return value * factor.to(value).view(-1, 1, 1)


@dataclass(frozen=True, eq=False, repr=False)
class Add(Intervention):
    """Adds `vector`, of shape (D,), (T,D) or (B,T,D); T is the number of selected tokens."""

    vector: Float[Tensor, "*#B D"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "vector", _as_tensor(self, self.vector))

    def new_value(self, value: Tensor) -> Tensor:
        """Returns `value + vector`."""
        return value + _fitting(self, self.vector, value)


@dataclass(frozen=True, eq=False, repr=False)
class Zero(Intervention):
    """Replaces the value by zeros (zero ablation)."""

    def new_value(self, value: Tensor) -> Tensor:
        """Returns zeros."""
        return torch.zeros_like(value)


@dataclass(frozen=True, eq=False, repr=False)
class _Replacement(Intervention):
    """Base of the interventions that replace the value by a given tensor, (D,), (T,D) or (B,T,D)."""

    value: Float[Tensor, "*#B D"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", _as_tensor(self, self.value))

    def new_value(self, value: Tensor) -> Tensor:
        """Returns the given tensor."""
        return _fitting(self, self.value, value)


@dataclass(frozen=True, eq=False, repr=False)
class Mean(_Replacement):
    """Replaces by the mean of the site over a reference set of pictures (mean ablation)."""


@dataclass(frozen=True, eq=False, repr=False)
class Resample(_Replacement):
    """Replaces by the site's value for other pictures (resample ablation), shape (B,T,D)."""


@dataclass(frozen=True, eq=False, repr=False)
class Patch(_Replacement):
    """Replaces by the site's value in another run on the same pictures (activation patching), shape (B,T,D)."""


@dataclass(frozen=True, eq=False, repr=False)
class ByRow(Intervention):
    """Restricts another intervention at the same site to some rows of the batch.

    Attributes:
        inner: the intervention; its tensors have one row for each of `rows`.
        rows: rows of the batch.
    """

    inner: Intervention | None = None
    rows: tuple[int, ...] = ()

    def apply(self, value: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Applies the inner intervention to `rows`.

        Raises:
            UsageError: if the inner intervention acts at another site, or the batch has no such rows.
        """
        inner = self._checked(value)
        changed, rows = value.clone(), list(self.rows)
        changed[rows] = inner.apply(value[rows]).to(value.dtype)
        return changed

    @property
    def reads_head_values(self) -> bool:
        """True if the inner intervention changes head values."""
        return self.inner is not None and self.inner.reads_head_values

    def through_heads(
        self, values: Float[Tensor, "B T d"], weights: Float[Tensor, "d D"]
    ) -> tuple[Float[Tensor, "B T d"], Float[Tensor, "B T D"]]:
        """Applies the inner intervention to the head values of `rows`.

        Raises:
            UsageError: as `apply`.
        """
        inner, rows = self._checked(values), list(self.rows)
        changed, added = values.clone(), values.new_zeros(*values.shape[:-1], weights.shape[-1])
        changed[rows], added[rows] = (part.to(values.dtype) for part in inner.through_heads(values[rows], weights))
        return changed, added

    def _checked(self, value: Float[Tensor, "B T _"]) -> Intervention:
        if self.inner is None or self.inner.site != self.site or self.tokens is not None:
            raise UsageError(f"ByRow at {self.site} takes an intervention at that site, which also names the tokens.")
        if not all(0 <= row < value.shape[0] for row in self.rows):
            raise UsageError(f"ByRow at {self.site}: the batch has {value.shape[0]} rows, counted from 0.")
        return self.inner


def _short(value: object) -> str:
    """Describes a value of an intervention; a tensor by its shape."""
    return f"tensor{tuple(value.shape)}" if isinstance(value, Tensor) and value.ndim else repr(value)


def _positions(intervention: Intervention) -> tuple[int, ...]:
    """Returns the token positions as whole numbers; a mask or anything else is refused."""
    tokens: Any = intervention.tokens
    mask = getattr(tokens, "dtype", None) in (torch.bool, np.bool_)
    try:
        if mask or any(isinstance(token, bool) for token in tokens):
            raise TypeError
        return tuple(index(token) for token in tokens)
    except TypeError:
        raise UsageError(
            f"{type(intervention).__name__} at {intervention.site}: tokens are positions, such as (0,) or "
            f"range(1, 5), not {_short(tokens)}."
        ) from None


def _as_tensor(intervention: Intervention, value: Any) -> Tensor | None:
    """Returns what an intervention was given as a tensor; arrays are converted."""
    if value is None or isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    raise UsageError(f"{type(intervention).__name__} at {intervention.site} takes a tensor, not {_short(value)}.")


def _fitting(intervention: Intervention, tensor: Tensor | None, value: Tensor) -> Tensor:
    """Returns the tensor of an intervention, after checking that it fits the value at the site."""
    if tensor is None:
        raise UsageError(f"{type(intervention).__name__} at {intervention.site} was given no tensor to use.")
    try:
        # A tensor that broadcasts to more pictures or tokens than the site has does not fit either.
        fits = torch.broadcast_shapes(tensor.shape, value.shape) == value.shape
        # A number that broadcasts over the width is no vector of the residual stream.
        fits = fits and (tensor.shape[-1:] or (1,)) == value.shape[-1:]
    except RuntimeError:
        fits = False
    if not fits:
        raise UsageError(
            f"{type(intervention).__name__} at {intervention.site}: a tensor of shape {tuple(tensor.shape)} does not "
            f"fit the site's (pictures, tokens, width) = {tuple(value.shape)}."
        )
    return tensor.to(value)
