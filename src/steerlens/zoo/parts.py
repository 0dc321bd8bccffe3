"""What the parts of a pair need of each other: an encoder inside a decoder, a decoder's idea of "no condition"."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from steerlens.decoders.base import Decoder
from steerlens.encoders.base import Encoder
from steerlens.errors import ModelError
from steerlens.storage.weights import read_json
from steerlens.zoo.cards import Card, Repository
from steerlens.zoo.registry import adapter_for


def encoder_of(decoder: Decoder, name: str) -> Encoder:
    """The encoder that a decoder holds, with the pictures that it was trained on: scaled, not cropped.

    Raises:
        ModelError: if the decoder holds none, or no adapter takes it.
    """
    native = getattr(decoder, "native_encoder", None)
    if native is None:
        raise ModelError(f"{decoder.spec.name} holds no encoder.")
    return adapter_for(native)(native, decoder_processor(decoder), name=name)


def decoder_processor(decoder: Any) -> Any:
    """The image processor of a representation autoencoder, as its config says."""
    from transformers import ViTImageProcessorPil

    model: Any = decoder.model
    side = model.config.encoder_input_size
    return ViTImageProcessorPil(
        size={"height": side, "width": side},
        resample=3,  # bicubic
        image_mean=model.encoder_mean.flatten().tolist(),
        image_std=model.encoder_std.flatten().tolist(),
    )


def negative_for(kind: Any, encoder: Encoder) -> Tensor | None:
    """What stands for "no condition" with a decoder's adapter: its own idea, or the embedding of an all-zero input."""
    own = getattr(kind, "negative_of", None)
    negative: Tensor | None = encoder.zero_embedding() if own is None else own(encoder)
    return None if negative is None else negative.cpu()


def processor_beside(folder: Path) -> Any:
    """The image processor that IP-Adapters use, for a CLIP encoder saved without one; None if there is one."""
    places = (folder, folder / "image_encoder", folder / "image_processor", folder / "feature_extractor")
    inner = folder / "image_encoder"
    # A folder that is there and empty is broken, not left out.
    if any((place / "preprocessor_config.json").is_file() for place in places) or any(p.is_dir() for p in places[2:]):
        return None
    config = read_json(inner / "config.json", "image_encoder") if (inner / "config.json").is_file() else {}
    if config.get("architectures") != ["CLIPVisionModelWithProjection"]:
        return None
    from transformers import CLIPImageProcessorPil

    side = config.get("image_size", 224)
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def unpinned_notes(card: Card, resolved: Sequence[Repository | Path | None]) -> list[str]:
    """For each place that its card does not pin, which commit was loaded."""
    given = (card.encoder, card.decoder)
    notes = [
        f"the card pins no revision of {place.repository}; this is {place.repository}@{place.revision}"
        for place, asked in zip(resolved, given, strict=True)
        if isinstance(place, Repository) and asked is not None and asked.revision is None
    ]
    return list(dict.fromkeys(notes))
