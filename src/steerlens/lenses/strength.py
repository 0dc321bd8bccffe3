"""Steering strength: a factor as in the paper, or relative to the residual that is steered.

    s    r_L + (s - 1) h                              s = 1 is the clean run
    rho  r_L + rho |C r_L| / |C h| h                  rho = 0 is the clean run

C removes the mean over width, as a final LayerNorm does (and is the identity before an RMSNorm), so `rho` measures only
what the readout can see, and writes of different norms are comparable. The two are related by

    rho = (s - 1) |C h| / |C r_L|

`rho` is signed: its absolute value is the norm of the addition, relative to the residual, and a negative value (s < 1)
steers away from the write.

As s grows, the steered residual becomes a multiple of h, and the embedding tends to the readout of an infinitely long
write, the limit of `P(LN(t h))` for large t. That is the Diffusion Lens `P(LN(h))` up to the epsilon of the norm:

    LN(x) = γ C x / sqrt(|C x|² / D + ε) + β

In the Diffusion Lens the term in γ is smaller than in the limit by the factor `sqrt(v / (v + ε))`, where `v` is the
variance of the write over width, `|C h|² / D`. With ε = 0 the two are equal.
"""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import UsageError

StrengthKind = Literal["s", "rho"]

_LARGEST = 1e9
"""Largest strength. Far beyond it, squares of the residual exceed single precision, and a norm would return zeros."""

_ROUNDING = 8
"""Machine epsilons of a write below which its visible part is rounding: the same number on every coordinate."""


@dataclass(frozen=True)
class Strength:
    """A steering strength.

    Attributes:
        kind: `s` (factor; 1 is clean) or `rho` (signed relative norm of the addition; 0 is clean, negative steers
            away).
        value: a number of at most 1e9 in size; kept as a plain float.
    """

    kind: StrengthKind
    value: float

    def __post_init__(self) -> None:
        if self.kind not in ("s", "rho"):
            raise UsageError(f"unknown kind of strength {self.kind!r}; it is s or rho.")
        given: Any = self.value
        if isinstance(given, bool) or not isinstance(given, Real):
            raise UsageError(f"a strength is a finite number, not {given!r}.")
        try:
            value = float(given)
        except OverflowError:  # of whole numbers, which have no largest
            raise UsageError(f"a strength is at most {_LARGEST:g}, and this one has hundreds of digits.") from None
        if not math.isfinite(value):
            raise UsageError(f"a strength is a finite number, not {given!r}.")
        # A plain float: numbers of NumPy write themselves as np.float64(0.5).
        object.__setattr__(self, "value", value)
        if abs(value) > _LARGEST:
            raise UsageError(
                f"a strength of {value:g} would overflow single precision; take at most {_LARGEST:g}. As it "
                "grows, the picture tends to that of the Diffusion Lens, which rho=1000 shows already."
            )

    def __str__(self) -> str:
        short = f"{self.value:g}"
        return f"{self.kind}={short if float(short) == self.value else repr(self.value)}"

    @property
    def is_clean(self) -> bool:
        """True if nothing is steered: s=1, rho=0."""
        return self.value == (1 if self.kind == "s" else 0)

    @classmethod
    def parse(cls, text: str) -> "Strength":
        """Reads `rho=1` or `s=40`; a bare number is ambiguous and refused.

        Raises:
            UsageError: if the text is no strength.
        """
        kind, equals, number = text.strip().replace(":", "=").rpartition("=")
        try:
            value = float("no number" if "_" in number else number)  # Python reads 1_0 as 10
            if not equals:
                raise UsageError(
                    f"{text!r} could be a factor or a relative strength; write s={number} (the write is multiplied by "
                    f"{number}) or rho={number} (what is added is {number} times as large as the residual)."
                )
            return cls(kind, value)  # type: ignore[arg-type]
        except ValueError:
            raise UsageError(f"{text!r} is not a strength; write rho=1 or s=40.") from None

    def coefficient(
        self, residual: Float[Tensor, "*N R D"], write: Float[Tensor, "*N R D"], *, centred: bool
    ) -> Float[Tensor, "*N"]:
        """Returns the factor of the write before it is added to the residual: `s - 1`, or `rho |C r_L| / |C h|`.

        A write that the final norm cannot see has no direction, and gets 0 under `rho`: zeros, or before a LayerNorm
        the same number on every coordinate, up to rounding.
        """
        size = visible_norm(write, centred=centred)
        rounding = _ROUNDING * torch.finfo(torch.promote_types(write.dtype, torch.float32)).eps
        size = size.where(size > rounding * write.flatten(-2).norm(dim=-1), 0)
        if self.kind == "s":
            return size.new_full(size.shape, self.value - 1)
        wanted = self.value * visible_norm(residual, centred=centred).expand_as(size)
        return (wanted / size.where(size > 0, 1)).where(size > 0, 0)


def as_strength(strength: Strength | str) -> Strength:
    """Returns a strength, parsed if it is a text such as `rho=1`.

    Raises:
        UsageError: if it is neither a strength nor its text form.
    """
    if isinstance(strength, Strength):
        return strength
    if isinstance(strength, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        return Strength.parse(strength)
    raise UsageError(f"{strength!r} is not a strength; write 'rho={strength}' or 's={strength}'.")


def visible_norm(vectors: Float[Tensor, "*N R D"], *, centred: bool) -> Float[Tensor, "*N"]:
    """Computes `|C v|` over readout tokens and width: the norm of the part that the final norm passes on."""
    if centred:
        vectors = vectors - vectors.mean(dim=-1, keepdim=True)
    return vectors.flatten(-2).norm(dim=-1)
