"""Decoders: generators that turn image embeddings, or image tokens, into pictures."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.decoders.base import (
        Decoded,
        Decoder,
        DecoderSpec,
        TokenDecoder,
        TokenSource,
        check_fit,
        check_request,
        clean_conditioning,
        decode,
        read_residuals,
    )
    from steerlens.decoders.batches import BatchSize, computed_in_batches, decode_in_batches, fitting
    from steerlens.decoders.compact import Precision, largest_layer, offload, store_compactly, stored_bytes
    from steerlens.decoders.diffusion import DiffusionDecoder, default_batch_size
    from steerlens.decoders.family import Family, FolderPart
    from steerlens.decoders.neighbours import (
        NeighboursDecoder,
        Skipped,
        build_index,
        index_pictures,
        is_index,
        source_of_index,
    )
    from steerlens.decoders.options import DecodeOptions, DecodeOverrides, SchedulerName
    from steerlens.decoders.redecoding import Redecoded, redecode, shown_pictures
    from steerlens.decoders.sampling import make_scheduler
    from steerlens.decoders.saved import SavedDecoder

__all__ = [
    "BatchSize",
    "DecodeOptions",
    "DecodeOverrides",
    "Decoded",
    "Decoder",
    "DecoderSpec",
    "DiffusionDecoder",
    "Family",
    "FolderPart",
    "NeighboursDecoder",
    "Precision",
    "Redecoded",
    "SavedDecoder",
    "SchedulerName",
    "Skipped",
    "TokenDecoder",
    "TokenSource",
    "build_index",
    "check_fit",
    "check_request",
    "clean_conditioning",
    "computed_in_batches",
    "decode",
    "decode_in_batches",
    "default_batch_size",
    "fitting",
    "index_pictures",
    "is_index",
    "largest_layer",
    "make_scheduler",
    "offload",
    "read_residuals",
    "redecode",
    "shown_pictures",
    "source_of_index",
    "store_compactly",
    "stored_bytes",
]

__getattr__, __dir__ = lazy_names(__name__)
