"""Base class of decoders that draw a picture from image tokens in one pass, without noise."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import Decoded, DecodeOptions, DecoderSpec, check_request
from steerlens.decoders.saved import SavedDecoder
from steerlens.errors import ModelError, UsageError
from steerlens.progress import Progress

_BATCH, _BATCH_CUDA = 8, 64


class OnePassDecoder(SavedDecoder, ABC):
    """A decoder of image tokens (N,t,D) in one pass; the seed changes nothing, and pictures have one size.

    Attributes:
        spec: its input and output.
    """

    spec: DecoderSpec

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The network that draws."""

    @abstractmethod
    def draw(self, tokens: Float[Tensor, "B t D"]) -> Float[Tensor, "B 3 height width"]:
        """Draws pictures, with values about in [0,1], from tokens on its device and in its precision."""

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights."""
        return next(self.network.parameters()).dtype

    def batch_size(self, options: DecodeOptions) -> int:
        """Returns the number of pictures decoded at once."""
        return options.batch_size or (_BATCH_CUDA if self.device.type == "cuda" else _BATCH)

    def decode_batches(
        self, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
    ) -> Iterator[Progress]:
        """Decodes batch by batch; a batch has no steps.

        Args:
            conditioning: image tokens (N,t,D), the output of `tokens`.
            seeds: one per picture; they change nothing.
            options: options of decoding; only size and batch size matter.

        Raises:
            ModelError: if the conditioning is of another kind or size, or a picture is not finite.
            UsageError: if the seeds or the size of the pictures do not fit.
        """
        options = options or self.spec.defaults
        check_request(self.spec, conditioning, seeds)
        if options.size != self.spec.defaults.size:
            height, width = self.spec.defaults.size
            raise UsageError(f"{self.spec.name} gives pictures of {height} x {width} pixels alone, not {options.size}.")
        size = self.batch_size(options)
        for start in range(0, len(seeds), size):
            decoded = Decoded(start, self._pictures(conditioning.values[start : start + size]))
            yield Progress("decoding", start + len(decoded.pictures), len(seeds), "pictures", decoded)

    @torch.no_grad()
    def _pictures(self, tokens: Float[Tensor, "B t D"]) -> Float[Tensor, "B 3 height width"]:
        pictures = self.draw(tokens.detach().to(self.device, self.dtype)).float().clamp(0, 1).cpu()
        if not torch.isfinite(pictures).all():
            raise ModelError(f"{self.spec.name} gave pictures that are not finite; try --dtype float32.")
        return pictures
