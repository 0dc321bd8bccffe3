"""The decoder protocol: the interface of a generator of pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.borders import native_errors, refuse_autocast
from steerlens.conditioning import Conditioning, Consumes
from steerlens.decoders.options import DecodeOptions as DecodeOptions
from steerlens.decoders.options import SchedulerName as SchedulerName
from steerlens.encoders import Encoder, EncoderSpec, Inputs
from steerlens.errors import ModelError, UsageError
from steerlens.interventions import Intervention
from steerlens.progress import Progress
from steerlens.sites import Site


@dataclass(frozen=True)
class TokenSource:
    """Position in the encoder of the image tokens that a decoder reads.

    Attributes:
        count: tokens that the decoder takes for one picture; None for any number.
        layers_after: encoder layers that come after the residual that is read: 0 for the final residual, 1 for the
            residual before the last layer. The writes of those layers never reach the decoder.
        patches_only: whether class and register tokens are dropped.
        normed: whether the tokens have passed the encoder's final norm (`TokenDecoder.tokens` applies it).
        layers: for a decoder that combines the residuals after several layers, those layers, counted from 0 and rising;
            None for the one layer that `layers_after` names.

    Raises:
        ModelError: if the layers do not rise, or `layers_after` names another last layer.
    """

    count: int | None = None
    layers_after: int = 0
    patches_only: bool = True
    normed: bool = True
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.layers is None:
            return
        rising = all(before < after for before, after in pairwise((-1, *self.layers)))
        if not self.layers or not rising or self.layers_after:
            raise ModelError(f"the layers that a decoder reads are counted from 0 and rise, unlike {self.layers}.")

    def layers_read(self, n_layers: int) -> tuple[int, ...]:
        """Returns every layer whose `resid_post` is read, in an encoder of L layers, in rising order."""
        return (n_layers - 1 - self.layers_after,) if self.layers is None else self.layers

    def last_layer(self, n_layers: int) -> int:
        """Returns the last layer whose `resid_post` is read, in an encoder of L layers."""
        return self.layers_read(n_layers)[-1]

    def check(self, site: Site, n_layers: int, decoder: str) -> None:
        """Checks that the value at a site can reach the decoder.

        Args:
            site: a place in the encoder.
            n_layers: L of the encoder.
            decoder: name for the message.

        Raises:
            UsageError: if the site belongs to a layer after the tokens that are read.
        """
        last = self.last_layer(n_layers)
        # The input of a layer is the output of the layer before.
        if site.layer - int(site.kind == "resid_pre") > last:
            raise UsageError(
                f"{site} has no effect on what {decoder} shows: it reads the tokens after layer {last} of {n_layers} "
                f"(counted from 0), before that site; choose sites of layers 0 to {last}."
            )


@dataclass(frozen=True)
class DecoderSpec:
    """Input and output of a decoder.

    Attributes:
        name: hub id, folder or given name.
        family: name of the adapter, as registered.
        consumes: the kind of conditioning.
        embedding_size: E of the embeddings, or D of the tokens.
        defaults: the options it is meant to be run with.
        tokens: for a decoder of image tokens, where in the encoder they are.
    """

    name: str
    family: str
    consumes: Consumes
    embedding_size: int
    defaults: DecodeOptions
    tokens: TokenSource | None = None


@dataclass(frozen=True, eq=False)
class Decoded:
    """Pictures of one finished batch: the payload of a decoder's progress.

    Attributes:
        first: index of its first picture among the rows of the conditioning.
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
    ) -> Iterator[Progress]:
        """Decodes batch after batch.

        Yields:
            Progress in pictures, of all rows; every finished batch is the payload of one event, a `Decoded`. Unfinished
            pictures count by the share of their steps that is done, below 1.
        """
        ...


@runtime_checkable
class TokenDecoder(Decoder, Protocol):
    """A decoder of image tokens, which turns the encoder's residual into its own conditioning."""

    def tokens(self, residual: Float[Tensor, "N *K T D"]) -> Float[Tensor, "N t D"]:
        """Turns the residual of every token at `spec.tokens`' layer, class and registers included, into conditioning.

        Drops the tokens that the decoder does not read and applies the encoder's final norm if the decoder needs it.

        Args:
            residual: residuals (N,T,D); (N,K,T,D) for a decoder of K layers (`TokenSource.layers`).
        """
        ...


def decode_events(
    decoder: Decoder, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
) -> Iterator[Progress]:
    """Yields the events of `Decoder.decode_batches`, and turns what a decoder's library raises into one exception.

    Raises:
        ModelError: if the decoder's native code fails; a lack of memory passes unchanged.
        UsageError: if autocast is on.
    """
    refuse_autocast(torch.device(getattr(decoder, "device", "cpu")), decoder.spec.name)
    with native_errors(f"{decoder.spec.name}: decoding failed"):
        yield from decoder.decode_batches(conditioning, seeds, options)


def decode(
    decoder: Decoder, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
) -> Float[Tensor, "N 3 height width"]:
    """Decodes all pictures at once, without progress; raises as `decode_events` does."""
    events = decode_events(decoder, conditioning, seeds, options)
    return torch.cat([event.payload.pictures for event in events if isinstance(event.payload, Decoded)])


def clean_conditioning(encoder: Encoder, decoder: Decoder, inputs: Inputs) -> Conditioning:
    """Returns the conditioning of unchanged pictures: their embeddings, or their image tokens.

    Args:
        encoder: the encoder of the pair.
        decoder: the decoder of the pair.
        inputs: the output of `encoder.preprocess`.

    Raises:
        ModelError: if the decoder reads tokens without saying which.
    """
    if decoder.spec.consumes == "image_embedding":
        return Conditioning("image_embedding", encoder.embed(inputs).float().cpu())
    if decoder.spec.tokens is None or not isinstance(decoder, TokenDecoder):
        raise ModelError(f"{decoder.spec.name} reads image tokens and does not say which (`spec.tokens`, `tokens()`).")
    residual = read_residuals(encoder, inputs, decoder.spec.tokens)
    return Conditioning("image_tokens", decoder.tokens(residual).float().cpu())


def read_residuals(
    encoder: Encoder, inputs: Inputs | Tensor, source: TokenSource, interventions: Sequence[Intervention] = ()
) -> Float[Tensor, "B *K T D"]:
    """Records the residuals that a decoder of image tokens reads, (B,T,D), or (B,K,T,D) if it combines K layers.

    Args:
        encoder: the encoder of the pair.
        inputs: the output of `encoder.preprocess`.
        source: the tokens that the decoder reads.
        interventions: changes of the forward pass.
    """
    sites = [Site("resid_post", layer) for layer in source.layers_read(encoder.spec.n_layers)]
    recorded = encoder.record(inputs, sites, interventions)
    return recorded[sites[0]] if source.layers is None else torch.stack([recorded[site] for site in sites], dim=1)


_INSTEAD = (
    "A map between both can be fitted on your pictures (steerlens bridge fit --from ENCODER --to MODEL "
    "--images PICTURES), or the nearest of your pictures shown without a generator (steerlens neighbours index PICTURES"
    " --encoder ENCODER)."
)


def check_fit(decoder: DecoderSpec, encoder: EncoderSpec) -> None:
    """Checks that an encoder's output fits a decoder's input.

    Raises:
        ModelError: if kind, size or number do not fit; the message says which.
    """
    size = encoder.embedding_size if decoder.consumes == "image_embedding" else encoder.width
    if decoder.embedding_size != size:
        what = "embeddings" if decoder.consumes == "image_embedding" else "image tokens"
        raise ModelError(
            f"{decoder.name}: the decoder reads {what} of size {decoder.embedding_size}, the encoder gives {size}: "
            f"they do not fit. {_INSTEAD}"
        )
    source = decoder.tokens
    if source is not None and source.last_layer(encoder.n_layers) >= encoder.n_layers:
        raise ModelError(
            f"{decoder.name}: the decoder reads the tokens after layer {source.last_layer(encoder.n_layers)}, and the "
            f"last layer of {encoder.name} is {encoder.n_layers - 1}: they do not fit."
        )
    if source is not None and source.count is not None:
        count = encoder.n_tokens - encoder.first_patch if source.patches_only else encoder.n_tokens
        if count != source.count:
            raise ModelError(
                f"{decoder.name}: the decoder reads {source.count} image tokens, encoder {encoder.name} gives {count}: "
                f"they do not fit. {_INSTEAD}"
            )


def check_request(spec: DecoderSpec, conditioning: Conditioning, seeds: Sequence[int]) -> None:
    """Checks that a conditioning fits a decoder and has one seed per row.

    Raises:
        ModelError: if the decoder reads another kind or size of conditioning.
        UsageError: if there is nothing to decode, or the number of seeds differs from that of rows.
    """
    if len(conditioning) == 0:
        raise UsageError("there is no embedding to decode.")
    if conditioning.kind != spec.consumes or conditioning.values.shape[-1] != spec.embedding_size:
        raise ModelError(
            f"decoder {spec.name} reads {spec.consumes} of size {spec.embedding_size}, but was given "
            f"{conditioning.kind} of size {conditioning.values.shape[-1]}: this encoder and this decoder do not fit."
        )
    count = None if spec.tokens is None else spec.tokens.count
    if count is not None and conditioning.values.shape[1] != count:
        raise ModelError(
            f"decoder {spec.name} reads {count} image tokens a picture, but was given {conditioning.values.shape[1]}: "
            "this encoder and this decoder do not fit."
        )
    if len(seeds) != len(conditioning):
        raise UsageError(f"{len(conditioning)} pictures need as many seeds, not {len(seeds)}.")
