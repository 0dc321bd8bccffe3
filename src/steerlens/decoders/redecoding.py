"""Decoding many embeddings and embedding the pictures again, optionally by an outside judge too, with progress."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import Decoded, DecodeOptions, Decoder, decode
from steerlens.decoders.batches import BatchSize, decode_in_batches
from steerlens.encoders import Encoder
from steerlens.images import eight_bit
from steerlens.progress import Progress


@dataclass(frozen=True, eq=False)
class Redecoded:
    """Embeddings of decoded pictures.

    Attributes:
        embeddings: embeddings by the encoder whose embeddings were decoded.
        judged: embeddings by the outside judge, or None.
        pictures: the pictures, values in [0,1], if kept.
    """

    embeddings: Float[Tensor, "N E"]
    judged: Float[Tensor, "N F"] | None = None
    pictures: Float[Tensor, "N 3 height width"] | None = None


def redecode(
    encoder: Encoder,
    decoder: Decoder,
    embeddings: Float[Tensor, "N E"],
    seeds: Sequence[int],
    options: DecodeOptions,
    *,
    judge: Encoder | None = None,
    keep: bool = False,
) -> Generator[Progress, None, Redecoded]:
    """Decodes embeddings and embeds the pictures again; yields progress in pictures, batch after batch.

    Args:
        encoder: embeds the pictures.
        decoder: decodes the embeddings.
        embeddings: embeddings to decode.
        seeds: one per embedding.
        options: options of decoding.
        judge: a second encoder of the pictures.
        keep: whether to keep the pictures.
    """
    own: list[Tensor] = []
    judged: list[Tensor] = []
    kept: list[Tensor] = []
    conditioning, batch = Conditioning("image_embedding", embeddings.float()), BatchSize(decoder, options)
    for event in decode_in_batches(decoder, conditioning, seeds, options, batch):
        if not isinstance(event.payload, Decoded):
            continue
        pictures = event.payload.pictures
        own.append(encoder.embed(encoder.preprocess_tensor(pictures)).float().cpu())
        if judge is not None:
            judged.append(judge.embed(judge.preprocess_tensor(pictures)).float().cpu())
        if keep:
            kept.append(pictures)
        yield replace(event, payload=None)
    return Redecoded(torch.cat(own), torch.cat(judged) if judged else None, torch.cat(kept) if kept else None)


def shown_pictures(
    decoder: Decoder, embeddings: Float[Tensor, "N E"], seeds: Sequence[int], options: DecodeOptions
) -> UInt8[Tensor, "N height width 3"]:
    """Decodes the few pictures that a study keeps for inspection, as 8-bit pixels."""
    pictures = decode(decoder, Conditioning("image_embedding", embeddings.float()), seeds, options)
    return torch.from_numpy(eight_bit(pictures))
