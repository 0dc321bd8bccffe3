"""Vision towers without a pooling of their own: the embedding is the mean of their patches, or one token.

Vision-language models give every patch to a language model. Without it, the user says what to look at: the mean of
the patches, or one token. Nothing is projected, since the projector of such a model belongs to its language model.

References: A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
arXiv 2103.00020.
"""

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

from jaxtyping import Float
from torch import Tensor, nn

from steerlens.encoders.base import Inputs, TokenReadout
from steerlens.encoders.clip import CLIPEncoder
from steerlens.encoders.hooks import first
from steerlens.encoders.pretrained import PretrainedEncoder
from steerlens.errors import UsageError


class TowerEncoder(PretrainedEncoder):
    """A vision tower whose embedding is the mean of its patches or one token, after its final norm if it has one.

    Args:
        model: the native model.
        processor: the image processor that belongs to it.
        name: its name in reports.
    """

    readout_kind: TokenReadout = "mean"
    """The readout: `mean`, or the number of a token (0 for a class token, which comes first)."""

    def with_readout(self, readout: TokenReadout) -> Self:
        """Returns an encoder over the same model with another readout.

        Raises:
            UsageError: if the model has no such token.
        """
        other = copy.copy(self)
        other.readout_kind = readout
        other.spec = replace(self.spec, readout_tokens=other.read_tokens(self.spec.n_tokens))
        return other

    @property
    def tower(self) -> Any:
        """The vision tower: the model itself."""
        return self._native

    @property
    @abstractmethod
    def final_norm(self) -> nn.Module:
        """The norm before the readout; an `Identity` if there is none."""

    @property
    def linear_after(self) -> nn.Module:
        """The final norm, which only a mean follows."""
        return self.final_norm

    @property
    def first_averaged(self) -> int:
        """Index of the first token of the mean, which ends with the last: by default the first patch."""
        return self.first_patch

    def read_tokens(self, n_tokens: int) -> tuple[int, ...] | None:
        """Returns the tokens of the mean, None for all, or the one token.

        Raises:
            UsageError: if the model has no such token.
        """
        if self.readout_kind == "mean":
            return tuple(range(self.first_averaged, n_tokens)) if self.first_averaged else None
        if isinstance(self.readout_kind, bool) or self.readout_kind not in range(n_tokens):
            raise UsageError(
                f"readout is 'mean' or the number of a token from 0 to {n_tokens - 1}, not {self.readout_kind!r}."
            )
        return (int(self.readout_kind),)

    def native_readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """The mean of the readout tokens, after the final norm if there is one."""
        return self.final_norm(residual.to(self.dtype)).mean(dim=1)

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B E"]:
        """The same of the residual after the last block, from one native forward pass."""
        kept: list[Tensor] = []
        # Registered last, so that it sees what the hooks of an intervention made of the residual.
        handle = self.blocks[-1].register_forward_hook(lambda _, __, output: kept.append(first(output)))
        try:
            self.run_tower(inputs)
        finally:
            handle.remove()
        return self.native_readout(self.arranged(kept[0])[:, list(self.readout_tokens)])

    def run_tower(self, inputs: Inputs) -> None:
        """Calls the native tower once."""
        self.tower(**inputs)


class CLIPVisionEncoder(TowerEncoder):
    """A `CLIPVisionModel` alone, without CLIP's projection: its normalised class token, or the mean of its patches."""

    family = "clip_vision"
    library = "a CLIP vision tower"
    architectures = ("CLIPVisionModel",)
    model_types: ClassVar[Mapping[str, str]] = {}
    parts = CLIPEncoder.parts
    readout_kind = 0

    @property
    def blocks(self) -> Sequence[Any]:
        """The native blocks, in order."""
        return self._native.encoder.layers

    @property
    def first_patch(self) -> int:
        """The class token comes first."""
        return 1

    @property
    def final_norm(self) -> nn.Module:
        """CLIP's norm after the last block."""
        return self._native.post_layernorm

    def refuse_unknown(self) -> None:
        """Makes sure that the model is built like a CLIP vision tower."""
        self.refuse_children("the model", self.model, {"embeddings", "pre_layrnorm", "encoder", "post_layernorm"})
        self.refuse_kind("post_layernorm", self._native.post_layernorm, "LayerNorm")
        self.refuse_children("encoder", self._native.encoder, {"layers"})
        self.refuse_blocks("encoder.layers")
