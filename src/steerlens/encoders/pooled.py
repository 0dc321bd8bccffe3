"""Base class of vision towers of transformers without a class token: tokens are normalised, then all are pooled.

An attention-pooling head reads them, if the tower has one; towers without it, and classifiers, take their mean.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.base import Inputs
from steerlens.encoders.pretrained import PretrainedEncoder


class PooledEncoder(PretrainedEncoder):
    """A vision tower whose embedding is read from every token, by the model's own norm and pooling."""

    norm: ClassVar[str]
    """Name of the tower's final norm."""
    norm_kind: ClassVar[str]
    """Its class."""
    head_kind: ClassVar[str]
    """Class of the pooling head."""

    @property
    def tower(self) -> Any:
        """The vision tower."""
        return getattr(self._native, "vision_model", self._native)

    @property
    def blocks(self) -> Sequence[Any]:
        """The native blocks, in order."""
        return self.tower.encoder.layers

    @property
    def first_patch(self) -> int:
        """Zero: all tokens are image patches."""
        return 0

    @property
    def final_norm(self) -> Any:
        """The norm of every token before pooling."""
        return getattr(self.tower, self.norm)

    @property
    def pools(self) -> bool:
        """True if tokens go through the pooling head; else their mean is taken."""
        return hasattr(self.tower, "head") and not hasattr(self._native, "classifier")

    @property
    def linear_after(self) -> nn.Module | None:
        """The final norm if a mean follows it, which is linear; None before a pooling head."""
        return None if self.pools else self.final_norm

    def refuse_tower(self) -> None:
        """Makes sure that the tower is built as the adapter says."""
        self.refuse_children("vision_model", self.tower, {"embeddings", "encoder", self.norm}, {"head"})
        self.refuse_kind(f"vision_model.{self.norm}", self.final_norm, self.norm_kind)
        if hasattr(self.tower, "head"):
            self.refuse_kind("vision_model.head", self.tower.head, self.head_kind)
        self.refuse_children("vision_model.encoder", self.tower.encoder, {"layers"})
        self.refuse_blocks("vision_model.encoder.layers")

    def read_tokens(self, n_tokens: int) -> tuple[int, ...] | None:
        """Returns None: every token is read."""
        return None

    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """The pooling head (or the mean) of the normalised tokens, and the projection where there is one."""
        tokens = self.final_norm(residual.to(self.dtype))
        return self.projected(self.tower.head(tokens) if self.pools else tokens.mean(dim=1))

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """The pooled tokens of one native forward pass, projected where there is a projection."""
        output = self.tower(**inputs)
        return self.projected(output.pooler_output if self.pools else output.last_hidden_state.mean(dim=1))

    def projected(self, pooled: Tensor) -> Float[Tensor, "N E"]:
        """Applies the projection after pooling; by default none."""
        return pooled
