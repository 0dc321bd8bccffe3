"""Notions of importance, as tables (P,N) over pictures and heads of the stored parts of a study.

Kept apart: *total* or *direct*; *unsigned*, how far the embedding moves, or *signed*, how much similarity with a target
is lost; what replaces a write. A target is the label's text, a given text, or another picture of the concept, and never
the clean embedding itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import StoreError
from steerlens.studies.shared.effects import ABLATIONS, Ablation, signed_effect, unsigned_effect

Parts = Sequence[Mapping[str, Tensor]]
Scope = Literal["total", "direct"]

INPUT, TEXT, OTHER, GIVEN = "input", "text", "other", "given text"
"""What similarities and effects are taken towards: the input, the label's text, another picture of the concept, a text
that was given for all pictures."""

TARGETS = (GIVEN, TEXT, OTHER)


@dataclass(frozen=True)
class Effect:
    """A notion of importance.

    Attributes:
        scope: `total` (a real forward pass) or `direct` (the final residual alone).
        target: one of `TARGETS` for a signed effect, empty for the unsigned one.
        ablation: what replaces a write.
    """

    scope: Scope
    target: str
    ablation: Ablation

    def __str__(self) -> str:
        return f"{self.scope}, {f'signed towards {self.target}' if self.target else 'unsigned'}, {self.ablation}"

    def table(self, parts: Parts) -> Float[Tensor, "P N"]:
        """The effect of every head of every picture.

        Raises:
            StoreError: if a part lacks what it needs.
        """
        clean = stacked(parts, "clean")
        ablated = stacked(parts, f"{self.scope}.{self.ablation}")
        if not self.target:
            return unsigned_effect(clean, ablated)
        return signed_effect(clean, ablated, stacked(parts, self.target))

    def first_order(self, parts: Parts) -> Float[Tensor, "P N"] | None:
        """Attribution patching of the total effect with this ablation and target.

        None for the unsigned one, whose gradient is zero at the start.
        """
        return stacked(parts, f"attribution.{self.ablation}.{self.target}") if self.target else None


def all_effects(parts: Parts, ablation: Ablation) -> tuple[Effect, ...]:
    """Every notion of importance that was measured, those of the given ablation first."""
    targets = ("", *targets_of(parts))
    others: list[Ablation] = [name for name in ABLATIONS if name != ablation and f"total.{name}" in parts[0]]
    scopes: tuple[Scope, ...] = ("total", "direct")
    return tuple(Effect(scope, target, one) for one in (ablation, *others) for scope in scopes for target in targets)


def stacked(parts: Parts, name: str) -> Tensor:
    """One tensor of all parts, stacked over pictures.

    Raises:
        StoreError: if a part lacks it.
    """
    try:
        return torch.stack([part[name].float() for part in parts])
    except (KeyError, RuntimeError) as error:
        raise StoreError(f"a part of this study does not hold {name!r} like the others: {error}.") from error


def targets_of(parts: Parts) -> tuple[str, ...]:
    """The targets that every picture has: a given text, the label's, another picture."""
    return tuple(name for name in TARGETS if all(name in part for part in parts))


def with_targets(parts: Parts, targets: Sequence[str]) -> list[dict[str, Tensor]]:
    """The same parts without targets other than these, which may be missing for other pictures of the study."""
    left_out = set(TARGETS) - set(targets)
    return [{name: tensor for name, tensor in part.items() if name not in left_out} for part in parts]
