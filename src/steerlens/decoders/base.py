"""The decoder protocol: what steerlens asks of a generator of pictures."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.conditioning import Conditioning, Consumes
from steerlens.errors import ModelError, UsageError

SchedulerName = Literal["ddpm", "ddim", "dpm++", "unipc"]


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode.

    Attributes:
        steps: denoising steps; ignored by decoders that take one pass.
        guidance: classifier-free guidance scale; 1 or less for none.
        scheduler: the sampler.
        size: height and width in pixels.
        batch_size: pictures decoded at once; None lets the decoder choose.
    """

    steps: int
    guidance: float
    scheduler: SchedulerName
    size: tuple[int, int]
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"at least 1 denoising step is needed, not {self.steps}.")
        if not math.isfinite(self.guidance):
            raise UsageError(f"guidance is a finite number, not {self.guidance}.")
        if min(self.size) < 1:
            raise UsageError(f"height and width are at least 1 pixel, not {self.size}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"a batch holds at least 1 picture, not {self.batch_size}.")


@dataclass(frozen=True)
class DecoderSpec:
    """What a decoder takes and gives.

    Attributes:
        name: hub id, folder or given name.
        family: name of the adapter, as registered.
        consumes: the kind of conditioning.
        embedding_size: E of the embeddings, or D of the tokens.
        defaults: the options it is meant to be run with.
    """

    name: str
    family: str
    consumes: Consumes
    embedding_size: int
    defaults: DecodeOptions


@dataclass(frozen=True)
class Denoised:
    """Progress: one more denoising step of the batch under way is done.

    Attributes:
        items: pictures in the batch.
        step: steps done, from 1.
        steps: steps in all.
    """

    items: int
    step: int
    steps: int


@dataclass(frozen=True, eq=False)
class Decoded:
    """A finished batch.

    Attributes:
        first: index of its first picture among those asked for.
        pictures: values in [0,1], float32, on the host.
    """

    first: int
    pictures: Float[Tensor, "B 3 height width"]


@runtime_checkable
class Decoder(Protocol):
    """Turns conditionings into pictures; each picture depends on its own row and seed alone, whatever the batch."""

    spec: DecoderSpec

    def decode_batches(
        self, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
    ) -> Iterator[Denoised | Decoded]:
        """Decodes batch after batch, telling each step."""
        ...


def decode(
    decoder: Decoder, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
) -> Float[Tensor, "N 3 height width"]:
    """All pictures at once, without progress."""
    events = decoder.decode_batches(conditioning, seeds, options)
    return torch.cat([event.pictures for event in events if isinstance(event, Decoded)])


def check_request(spec: DecoderSpec, conditioning: Conditioning, seeds: Sequence[int]) -> None:
    """Makes sure that a conditioning fits a decoder, one seed a row.

    Raises:
        ModelError: if the decoder reads another kind or size of conditioning.
        UsageError: if there is nothing to decode, or not one seed a row.
    """
    if len(conditioning) == 0:
        raise UsageError("there is no embedding to decode.")
    if conditioning.kind != spec.consumes or conditioning.values.shape[-1] != spec.embedding_size:
        raise ModelError(
            f"decoder {spec.name} reads {spec.consumes} of size {spec.embedding_size}, but was given "
            f"{conditioning.kind} of size {conditioning.values.shape[-1]}: this encoder and this decoder do not fit."
        )
    if len(seeds) != len(conditioning):
        raise UsageError(f"{len(conditioning)} pictures need as many seeds, not {len(seeds)}.")
