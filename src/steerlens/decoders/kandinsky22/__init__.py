"""The Kandinsky 2.2 family: every `KandinskyV22Pipeline` folder, the paper's and the bundled small one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names
from steerlens.decoders.family import ENCODER_IN_PRIOR, MOVQ, SCHEDULER, UNET, Family

if TYPE_CHECKING:
    from steerlens.decoders.kandinsky22.adapter import Kandinsky22Decoder

FAMILIES: Mapping[str, Family] = {
    "kandinsky-2.2": Family(
        "KandinskyV22Pipeline",
        {"unet": UNET, "movq": MOVQ, "scheduler": SCHEDULER},
        ENCODER_IN_PRIOR,
        text_files=(
            "text_encoder/config.json",
            "text_encoder/model.safetensors",
            "tokenizer/vocab.json",
            "tokenizer/*",
        ),
    )
}

__all__ = ["FAMILIES", "Kandinsky22Decoder"]

__getattr__, __dir__ = lazy_names(__name__)
