"""Opening a decoder: the registered adapter of its family, in the precision of the device, with its negative."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerlens.borders import native_errors
from steerlens.decoders import DecodeOptions, Decoder, Precision, offload, store_compactly
from steerlens.devices import decoder_dtype
from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.zoo.cards import Card
from steerlens.zoo.decoder_families import family_of
from steerlens.zoo.locating import LocatedPair
from steerlens.zoo.registry import adapter


def open_decoder(
    source: Path | LocatedPair,
    negative: Tensor | None,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    name: str = "",
    options: DecodeOptions | None = None,
    precision: Precision | None = None,
    offloaded: bool = False,
) -> Decoder:
    """Opens a decoder from a folder of the hub's layout.

    Args:
        source: a folder with `model_index.json` and a folder for each component; or a located pair.
        negative: the row of conditioning for "no condition" (`negative_for`); None for the decoder's own.
        device: device of the decoder.
        dtype: precision; None for the fastest of the device.
        name: its name in reports.
        options: its default options.
        precision: storage of its network's weights in 8 bits, or None.
        offloaded: whether its weights stay in the host's memory while a GPU computes.

    Raises:
        UsageError: if it cannot be stored so, or there is no GPU.
        ModelError: if it is incomplete or broken, or takes embeddings of another size.
    """
    located = LocatedPair(source, source, source, family=family_of(source)) if isinstance(source, Path) else source
    kind = adapter("steerlens.decoders", located.family)
    extra = {} if located.adapter is None else {"adapter": located.adapter}
    if offloaded and device.type == "cpu":  # before gigabytes are read
        raise UsageError("--offload keeps weights in the host's memory while a GPU computes; this device is the CPU.")
    place = torch.device("cpu") if offloaded else device
    given = {"device": place, "dtype": decoder_dtype(device, dtype), "name": name or str(located.decoder)}
    with native_errors(f"decoder {given['name']} cannot be loaded"):
        decoder: Decoder = kind.from_folder(located.decoder, negative, options=options, **given, **extra)
        if precision is not None:
            store_compactly(decoder, precision)
        if offloaded:
            offload(decoder, device)
    return decoder


def negative_for(family: str, encoder: Encoder) -> Tensor | None:
    """Returns the conditioning for "no condition" in a decoder family.

    It is the adapter's own `negative_of(encoder)`, or the embedding of an all-zero input.

    Raises:
        ModelError: if no such adapter is registered.
    """
    kind: Any = adapter("steerlens.decoders", family)
    negative: Tensor | None
    negative = kind.negative_of(encoder) if hasattr(kind, "negative_of") else encoder.zero_embedding()
    return None if negative is None else negative.cpu()


def default_options(card: Card | None, size: tuple[int, int]) -> DecodeOptions:
    """Returns the default options of a decoder: those of its card, or of its family.

    Args:
        card: card of the pair, or None for a folder.
        size: height and width in pixels that the decoder was trained for.
    """
    return DecodeOptions(25, 4.0, "dpm++", size) if card is None else card.defaults.options()
