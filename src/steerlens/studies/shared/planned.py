"""Stand-ins for models that a dry run does not load: they state their sizes and compute nothing."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.decoders import DecoderSpec
from steerlens.encoders import EncoderSpec


class PlannedEncoder:
    """Stands for an encoder that is not loaded.

    Args:
        spec: its sizes.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec


class PlannedDecoder:
    """Stands for a decoder that is not loaded.

    Args:
        spec: its name, sizes and default options.
    """

    def __init__(self, spec: DecoderSpec) -> None:
        self.spec = spec


class PlannedTexts:
    """Stands for the text encoder of a pair, which takes any text.

    Args:
        embedding_size: E.
    """

    def __init__(self, embedding_size: int) -> None:
        self._size = embedding_size

    def directions(self, texts: Sequence[str]) -> Float[Tensor, "V E"]:
        """Returns directions without a meaning, for checks of what is known."""
        return torch.nn.functional.normalize(torch.ones(len(texts), self._size), dim=-1)
