"""Joint models: encoder and decoder saved as one model, such as representation autoencoders."""

from typing import Any

import torch

from steerlens.decoders import DecodeOptions, Decoder, Precision
from steerlens.encoders import Encoder
from steerlens.errors import ModelError
from steerlens.zoo.decoder_opening import open_decoder
from steerlens.zoo.locating import LocatedPair
from steerlens.zoo.registry import adapter_for


def open_joint(
    located: LocatedPair,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    name: str,
    options: DecodeOptions | None = None,
    precision: Precision | None = None,
    offloaded: bool = False,
) -> tuple[Encoder, Decoder]:
    """Opens both halves of a joint model, reading its weights once; arguments as in `open_decoder`.

    Raises:
        ModelError: if it is incomplete or broken, or no adapter supports its encoder.
    """
    memory: dict[str, Any] = {"precision": precision, "offloaded": offloaded}
    decoder = open_decoder(located, None, device=device, dtype=dtype, name=name, options=options, **memory)
    return encoder_inside(decoder, name), decoder


def encoder_inside(decoder: Decoder, name: str) -> Encoder:
    """Wraps the encoder inside a decoder, with its training's image processor: scaling without a crop.

    Raises:
        ModelError: if the decoder contains no encoder, or no adapter supports it.
    """
    native = getattr(decoder, "native_encoder", None)
    if native is None:
        raise ModelError(f"{decoder.spec.name} holds no encoder.")
    return adapter_for(native)(native, _processor(decoder), name=name)


def _processor(decoder: Any) -> Any:
    from transformers import ViTImageProcessorPil

    model: Any = decoder.model
    side = model.config.encoder_input_size
    return ViTImageProcessorPil(
        size={"height": side, "width": side},
        resample=3,  # bicubic
        image_mean=model.encoder_mean.flatten().tolist(),
        image_std=model.encoder_std.flatten().tolist(),
    )
