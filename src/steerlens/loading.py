"""Loading a pair by the name of a card, a folder, an index of pictures, or a bridge."""

from functools import partial
from pathlib import Path

import torch

from steerlens.bridges import bridge_folder, find_bridge
from steerlens.decoders import Decoder, Precision
from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.zoo import (
    Pair,
    cards,
    index_folder,
    is_folder,
    load_encoder,
    open_index,
    open_pair,
    read_vocabulary,
    requested_index,
)

__all__ = ["Pair", "load", "load_encoder", "read_vocabulary"]


def load(
    source: str | Path = "emoji",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    local_files_only: bool = False,
    local: str | Path | None = None,
    encoder: Encoder | str | Path | None = None,
    decoder: Decoder | None = None,
    neighbours: str | Path | None = None,
    precision: Precision | None = None,
    offload: bool = False,
) -> Pair:
    """Loads an encoder and its decoder.

    An encoder without a decoder shows the nearest pictures of an index built with it, if there is one (see
    `zoo.indexes.found_index`); the pair's notes say so.

    Args:
        source: the name of a card, a folder that contains a pair, or `bridge:FOLDER` (see `steerlens.bridges`).
        device: `cpu`, `cuda`, ...; by default a CUDA device if there is one.
        dtype: `auto`, `float32`, `bfloat16` or `float16`. By default the encoder runs in float32, or in half precision
            if it is larger than 4 GB, and the decoder in the fastest precision of the device.
        local_files_only: never use the network.
        local: a folder that replaces the hub, for a card.
        encoder: an encoder, or its source, that replaces the pair's own.
        decoder: a decoder that replaces the pair's own.
        neighbours: an index of pictures that replaces the decoder; only the encoder of `source` is then loaded.
        precision: `fp8` or `int8` to store the weights of the decoder's denoising network in 8 bits; the encoder, which
            is looked at, keeps its precision.
        offload: keep the decoder's weights in the host's memory, each layer's on the GPU only while it runs.

    Raises:
        UsageError: if there is no such model, device, precision or index, or an argument has no effect.
        ModelError: if the pair cannot be fetched, is incomplete or broken, or encoder and decoder do not fit.
    """
    bridge = bridge_folder(source)
    if neighbours is not None and (decoder is not None or bridge is not None):
        raise UsageError("an index of pictures stands in place of a decoder; give it with an encoder alone.")
    opening = partial(
        _open,
        device=device,
        dtype=dtype,
        local_files_only=local_files_only,
        local=local,
        decoder=decoder,
        precision=precision,
        offload=offload,
    )
    if bridge is not None:
        stored = find_bridge(bridge, encoder, local_files_only=local_files_only)
        return stored.lead_to(opening(stored.target_source), device=device, dtype=dtype)
    if local is not None:
        _refuse_unused_local(source, local, neighbours)
    return opening(source, encoder=encoder, neighbours=neighbours)


def _open(
    source: str | Path,
    *,
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    local_files_only: bool,
    local: str | Path | None,
    decoder: Decoder | None,
    precision: Precision | None,
    offload: bool,
    encoder: Encoder | str | Path | None = None,
    neighbours: str | Path | None = None,
) -> Pair:
    """Opens an index or a pair; arguments as in `load`."""
    index = requested_index(source, neighbours, local=local, encoder=encoder, decoder=decoder)
    if index is not None:
        if precision is not None or offload:
            raise UsageError("an index of pictures has no network to store in 8 bits or to keep on the host.")
        return open_index(
            index.folder, encoder=index.encoder, device=device, dtype=dtype, local_files_only=local_files_only
        )
    return open_pair(
        source,
        device=device,
        dtype=dtype,
        local_files_only=local_files_only,
        local=local,
        encoder=encoder,
        decoder=decoder,
        precision=precision,
        offload=offload,
    )


def _refuse_unused_local(source: str | Path, local: str | Path, neighbours: str | Path | None) -> None:
    """Checks that `local` takes the place of a download; it would otherwise replace another argument, or be ignored."""
    known, why = cards().get(str(source)), ""
    if neighbours is not None:
        why = "the encoder of an index of pictures is opened from where the model says; give its folder as the model"
    elif index_folder(source) is not None:
        why = f"{source} is an index of pictures, which says where its encoder is"
    elif known is None and is_folder(source):
        why = f"{source} is a folder itself; give one of the two as the model"
    elif known is not None and known.bundled_folder is not None and known.encoder is None:
        why = f"{source} is in the package, and nothing is downloaded for it; give the folder as the model"
    if why:
        raise UsageError(f"local {local} cannot be used: {why}.")
