"""An encoder seen through a bridge: its own layers and heads, and the embeddings of another encoder's space.

The bridge is a part of the readout, `B(P(LN(x)))`, so that every lens, study and intervention on the encoder goes
through it, the closed form of DSL included.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from steerlens.bridges.maps import Bridge
from steerlens.encoders import Encoder, Hook, Inputs, LayerModules, NativeEncoder, Recorded
from steerlens.errors import ModelError
from steerlens.interventions import Intervention
from steerlens.sites import Site
from steerlens.storage.parameters import tensor_bytes
from steerlens.trace import Trace


class BridgedEncoder(NativeEncoder):
    """An encoder whose embeddings lie in another encoder's space.

    Attributes:
        source: the encoder whose layers and heads are inspected.
        bridge: the map of its embeddings.
    """

    def __init__(self, source: Encoder, bridge: Bridge, *, name: str = "") -> None:
        """Wraps an encoder.

        Args:
            source: an encoder whose native modules can be hooked, such as any adapter of this package.
            bridge: a map from its embeddings.
            name: its name in reports; by default the encoder's own name.

        Raises:
            ModelError: if the bridge takes embeddings of another size, or the encoder names no native modules.
        """
        if not isinstance(source, NativeEncoder):
            raise ModelError(f"{source.spec.name}: an encoder that names no native modules cannot be bridged.")
        if isinstance(source, BridgedEncoder):
            raise ModelError(f"{source.spec.name} goes through a bridge already; fit one from the encoder itself.")
        if bridge.source_size != source.spec.embedding_size:
            raise ModelError(
                f"{source.spec.name}: the bridge takes embeddings of size {bridge.source_size}, the encoder gives "
                f"{source.spec.embedding_size}: they do not fit."
            )
        self.source, self.bridge, self.model = source, bridge, source.model
        self.spec = replace(source.spec, name=name or source.spec.name, embedding_size=bridge.target_size)

    @property
    def identity(self) -> str:
        """A text that is equal for equal bridges; weights of the encoder itself are no part of it."""
        digest = hashlib.sha256()
        for part, tensor in sorted(self.bridge.tensors().items()):
            digest.update(f"{part} {tuple(tensor.shape)}".encode())
            digest.update(tensor_bytes(tensor))
        return digest.hexdigest()

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the encoder's weights."""
        return self.source.dtype

    @property
    def linear_after(self) -> nn.Module | None:
        """The encoder's own final norm, if the bridge after it is linear too."""
        return self.source.linear_after if self.bridge.kernel is None else None

    @property
    def shared_arguments(self) -> frozenset[str]:
        """Delegates to the encoder."""
        return self.source.shared_arguments

    def native_hook(self, hook: Hook) -> Hook:
        """Delegates to the encoder."""
        return self.source.native_hook(hook)

    def call_block(
        self, block: nn.Module, hidden: Float[Tensor, "B T D"], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Float[Tensor, "B T D"]:
        """Delegates to the encoder."""
        return self.source.call_block(block, hidden, args, kwargs)

    def layers(self) -> Sequence[LayerModules]:
        """Delegates to the encoder."""
        return self.source.layers()

    def readout(self, residual: Float[Tensor, "N R D"]) -> Float[Tensor, "N F"]:
        """Applies the encoder's own readout, then the bridge."""
        return self._cross(self.source.readout(residual))

    def native_forward(self, inputs: Inputs) -> Float[Tensor, "B F"]:
        """Calls the native model once, then the bridge."""
        return self._cross(self.source.native_forward(inputs))

    def preprocess(self, images: Sequence[Image.Image]) -> Inputs:
        """Turns pictures into the encoder's inputs."""
        return self.source.preprocess(images)

    def preprocess_tensor(self, pictures: Float[Tensor, "B 3 height width"]) -> Inputs:
        """Turns pictures with values in [0,1] into the encoder's inputs."""
        return self.source.preprocess_tensor(pictures)

    def recording_attention(self, tokens: Sequence[int]) -> AbstractContextManager[Recorded]:
        """Delegates to the encoder."""
        return self.source.recording_attention(tokens)

    def forward(self, inputs: Inputs | Tensor, interventions: Sequence[Intervention] = ()) -> Float[Tensor, "B F"]:
        """Runs the true forward pass under interventions, then the bridge; gradients flow."""
        return self._cross(self.source.forward(inputs, interventions))

    @torch.no_grad()
    def trace(self, inputs: Inputs | Tensor, *, attention: bool = False, neurons: bool = False) -> Trace:
        """Decomposes the encoder's own residual, with the embedding mapped by the bridge."""
        trace = self.source.trace(inputs, attention=attention, neurons=neurons)
        return replace(trace, embedding=self._cross(trace.embedding))

    def record(
        self, inputs: Inputs | Tensor, sites: Sequence[Site], interventions: Sequence[Intervention] = ()
    ) -> dict[Site, Float[Tensor, "B T D"]]:
        """Records the values at the encoder's own sites."""
        return self.source.record(inputs, sites, interventions)

    def _cross(self, embeddings: Float[Tensor, "B E"]) -> Float[Tensor, "B F"]:
        if self.bridge.weight.device != embeddings.device:  # stays there, since readouts are called very often
            self.bridge = self.bridge.to(embeddings.device)
        return self.bridge(embeddings)
