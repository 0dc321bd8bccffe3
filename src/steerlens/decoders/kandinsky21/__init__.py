"""The Kandinsky 2.1 family: `KandinskyPipeline` folders, whose UNet reads a text beside the image embedding."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names
from steerlens.decoders.family import ENCODER_IN_PRIOR, MOVQ, SCHEDULER, TEXT, UNET, Family

if TYPE_CHECKING:
    from steerlens.decoders.kandinsky21.adapter import Kandinsky21Decoder

FAMILIES: Mapping[str, Family] = {
    "kandinsky-2.1": Family(
        "KandinskyPipeline", {"unet": UNET, "movq": MOVQ, "scheduler": SCHEDULER, **TEXT}, ENCODER_IN_PRIOR
    )
}

__all__ = ["FAMILIES", "Kandinsky21Decoder"]

__getattr__, __dir__ = lazy_names(__name__)
