"""The encoder protocol: the interface of a Vision Transformer from any library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steerlens.encoders.geometry import Geometry, View, covering, stretched
from steerlens.interventions import Intervention
from steerlens.sites import Site
from steerlens.trace import Trace

Inputs = Mapping[str, Tensor]
"""Arguments of the native model, by name; most models take `pixel_values` (B,3,height,width) alone."""

TokenReadout = Literal["mean"] | int
"""The tokens that a tower without pooling is read from: the mean of all patches, or one token by its number."""


def joined_inputs(parts: Sequence[Inputs]) -> Inputs:
    """Joins the inputs of several pictures to those of one batch."""
    return {name: torch.cat([inputs[name] for inputs in parts]) for name in parts[0]}


@dataclass(frozen=True)
class EncoderSpec:
    """Sizes of an encoder and the tokens that its embedding is read from.

    Attributes:
        name: hub id, folder or given name.
        family: name of the adapter, as registered.
        n_layers: L.
        n_heads: H.
        width: D.
        embedding_size: E.
        image_size: height and width, in pixels, of the pictures it sees.
        n_tokens: T, all tokens of a picture.
        patch_grid: rows and columns of image patches.
        first_patch: index of the first image patch among the tokens (those before it are CLS and registers).
        readout_tokens: the tokens that the embedding is read from; None for all of them.
        centred: whether the final norm removes the mean over width (LayerNorm) or not (RMSNorm).
        crops: whether parts of some pictures are cut off; decides alone where there is no `geometry`.
        geometry: how preprocessing moves pixels; None in runs and adapters of earlier versions, see `view`.
    """

    name: str
    family: str
    n_layers: int
    n_heads: int
    width: int
    embedding_size: int
    image_size: tuple[int, int]
    n_tokens: int
    patch_grid: tuple[int, int]
    first_patch: int
    readout_tokens: tuple[int, ...] | None
    centred: bool = True
    crops: bool = True
    geometry: Geometry | None = None

    def view(self, picture: tuple[int, int]) -> View:
        """Maps a picture to the model's input; without a geometry, its centre or the whole picture squashed.

        Args:
            picture: its width and height, in pixels.

        Raises:
            UsageError: if the geometry of the preprocessing is unknown.
        """
        legacy = covering(self.image_size) if self.crops else stretched(self.image_size)
        return (self.geometry or legacy).view(picture)


@runtime_checkable
class Encoder(Protocol):
    """A native Vision Transformer, opened up: traced, steered and read out without a second copy of its code."""

    spec: EncoderSpec

    @property
    def device(self) -> torch.device:
        """The device of the model's weights."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        ...

    def preprocess(self, images: Sequence[Image.Image]) -> Inputs:
        """Turns pictures into the model's inputs, on its device."""
        ...

    def preprocess_tensor(self, pictures: Float[Tensor, "B 3 height width"]) -> Inputs:
        """Turns pictures with values in [0,1] into the model's inputs, by the same steps as `preprocess`."""
        ...

    def forward(self, inputs: Inputs | Tensor, interventions: Sequence[Intervention] = ()) -> Float[Tensor, "B E"]:
        """The true forward pass under interventions, everything downstream reacting; gradients flow."""
        ...

    def embed(self, inputs: Inputs | Tensor, interventions: Sequence[Intervention] = ()) -> Float[Tensor, "B E"]:
        """`forward` without gradients."""
        ...

    def trace(self, inputs: Inputs | Tensor, *, attention: bool = False) -> Trace:
        """The decomposition of the readout tokens' final residual, from one forward pass."""
        ...

    def record(
        self, inputs: Inputs | Tensor, sites: Sequence[Site], interventions: Sequence[Intervention] = ()
    ) -> dict[Site, Float[Tensor, "B T D"]]:
        """Records the values at sites on every token, from one forward pass: those that patches and ablations use."""
        ...

    def zero_embedding(self) -> Float[Tensor, "1 E"]:
        """The embedding of all-zero `pixel_values`, the unconditional embedding of unCLIP decoders."""
        ...

    def readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """The model's own final norm, pooling and projection of the residual of the readout tokens."""
        ...
