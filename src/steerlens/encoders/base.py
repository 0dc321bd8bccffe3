"""The encoder protocol: what steerlens asks of a Vision Transformer, whatever library it comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steerlens.encoders.geometry import Geometry, View, covering, stretched
from steerlens.interventions import Intervention
from steerlens.sites import Site
from steerlens.trace import Trace

Inputs = Mapping[str, Tensor]
"""What the native model is called with, by argument name; most take `pixel_values` (B,3,height,width) alone."""


@dataclass(frozen=True)
class EncoderSpec:
    """The sizes of an encoder and how it reads its embedding out.

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
        """Where a picture lies in the model's input; without a geometry it is the centre, or all of it squashed.

        Args:
            picture: its width and height, in pixels.

        Raises:
            UsageError: if it is not known how preprocessing moves pixels.
        """
        legacy = covering(self.image_size) if self.crops else stretched(self.image_size)
        return (self.geometry or legacy).view(picture)


@runtime_checkable
class Encoder(Protocol):
    """A native Vision Transformer, opened up: traced, steered and read out without a second copy of its code."""

    spec: EncoderSpec

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        ...

    def preprocess(self, images: Sequence[Image.Image]) -> Inputs:
        """Pictures as the model wants them, on its device."""
        ...

    def preprocess_tensor(self, pictures: Float[Tensor, "B 3 height width"]) -> Inputs:
        """Pictures with values in [0,1] as the model wants them, through the same steps as `preprocess`."""
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
        """What sites hold on every token, from one forward pass: the values that patches and ablations put back."""
        ...

    def zero_embedding(self) -> Float[Tensor, "1 E"]:
        """The embedding of all-zero `pixel_values`, which unCLIP decoders take for "no condition"."""
        ...

    def readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N E"]:
        """The model's own final norm, pooling and projection of the residual of the readout tokens."""
        ...
