"""The Karlo family: `UnCLIPImageVariationPipeline` folders, unCLIP in pixels."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names
from steerlens.decoders.family import ENCODER_IN_PIPELINE, TEXT, Family, FolderPart

if TYPE_CHECKING:
    from steerlens.decoders.karlo.adapter import KarloDecoder

# diffusers calls the pipeline deprecated and still ships it.
_TEXT_PROJECTION = "diffusers.pipelines.deprecated.unclip.text_proj:UnCLIPTextProjModel"

FAMILIES: Mapping[str, Family] = {
    "karlo": Family(
        "UnCLIPImageVariationPipeline",
        {
            "decoder": FolderPart("diffusers", "decoder", "UNet2DConditionModel"),
            "text_proj": FolderPart("diffusers", "text_proj", _TEXT_PROJECTION),
            "super_res_first": FolderPart("diffusers", "super_res_first", "UNet2DModel"),
            "super_res_last": FolderPart("diffusers", "super_res_last", "UNet2DModel"),
            "decoder_scheduler": FolderPart("scheduler", "scheduler_config"),
            "super_res_scheduler": FolderPart("scheduler", "super_res_config"),
            **TEXT,
        },
        ENCODER_IN_PIPELINE,
    )
}

__all__ = ["FAMILIES", "KarloDecoder"]

__getattr__, __dir__ = lazy_names(__name__)
