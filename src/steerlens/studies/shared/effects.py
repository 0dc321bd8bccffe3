"""Notions of importance, as tables (P,N) over pictures and heads.

An effect is *total* or *direct*; it is *unsigned* (the distance that the embedding moves) or *signed* (the similarity
with a target that is lost); and it depends on the replacement of the write.
"""

from dataclasses import dataclass
from typing import get_args

from jaxtyping import Float
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.studies.shared.ablation import ABLATIONS, Ablation, signed_effect, unsigned_effect
from steerlens.studies.shared.measurements import PictureTables, Scope
from steerlens.studies.shared.targets import TARGETS

_SIGNED = "signed towards "
_UNSIGNED = "unsigned"


@dataclass(frozen=True)
class Effect:
    """A notion of importance; its text form reads `total, signed towards text, mean`.

    Attributes:
        scope: `total` (a real forward pass) or `direct` (the final residual alone).
        target: a name of `TARGETS` for a signed effect, empty for the unsigned effect.
        ablation: replacement of the write.
    """

    scope: Scope
    target: str
    ablation: Ablation

    def __str__(self) -> str:
        return ", ".join((self.scope, f"{_SIGNED}{self.target}" if self.target else _UNSIGNED, self.ablation))

    @classmethod
    def parse(cls, text: str) -> "Effect":
        """Parses the text form.

        Raises:
            UsageError: if the text describes no effect.
        """
        for scope in get_args(Scope):
            for target in ("", *TARGETS):
                for ablation in ABLATIONS:
                    if str(effect := cls(scope, target, ablation)) == text:
                        return effect
        raise UsageError(f"{text!r} is no effect of ablation.")

    @property
    def unsigned(self) -> "Effect":
        """The same effect without a target."""
        return Effect(self.scope, "", self.ablation)

    def table(self, tables: PictureTables) -> Float[Tensor, "P N"]:
        """The effect of every head on every picture.

        Raises:
            StoreError: if a part lacks the embeddings or the target.
        """
        ablated = tables.ablated(self.scope, self.ablation)
        if not self.target:
            return unsigned_effect(tables.clean, ablated)
        return signed_effect(tables.clean, ablated, tables.compared(self.target))

    def of_remainder(self, tables: PictureTables) -> Float[Tensor, "P 2"] | None:
        """The total effect of the autoencoder's error and bias, with this ablation and target; None without them."""
        ablated = tables.remainder(self.ablation)
        if ablated is None:
            return None
        if not self.target:
            return unsigned_effect(tables.clean, ablated)
        return signed_effect(tables.clean, ablated, tables.compared(self.target))

    def first_order(self, tables: PictureTables) -> Float[Tensor, "P N"] | None:
        """Attribution patching of the total effect with this ablation and target.

        None for the unsigned effect, whose gradient vanishes at the clean embedding.
        """
        return tables.first_order(self.ablation, self.target) if self.target else None


def all_effects(tables: PictureTables, ablation: Ablation) -> tuple[Effect, ...]:
    """All measured notions of importance, those with the given ablation first."""
    ordered: list[Ablation] = [ablation, *(name for name in tables.ablations if name != ablation)]
    return tuple(
        Effect(scope, target, name) for name in ordered for scope in get_args(Scope) for target in ("", *tables.targets)
    )
