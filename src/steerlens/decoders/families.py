"""How each decoder family is saved: its pipeline class, its parts, and the files that the hub is asked for.

Read without importing torch, so that listing models is quick.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Literal

Kind = Literal["diffusers", "transformers", "scheduler", "tokenizer", "processor"]

_FILES: Mapping[Kind, tuple[str, ...]] = {
    "diffusers": ("config.json", "diffusion_pytorch_model.safetensors"),
    "transformers": ("config.json", "model.safetensors"),
    "scheduler": ("scheduler_config.json",),
    "tokenizer": ("*",),
    "processor": ("preprocessor_config.json",),
}


@dataclass(frozen=True)
class Family:
    """How a family's folders look.

    Attributes:
        pipeline: class that `model_index.json` names, or `config.json` for a single model.
        parts: what the decoder is made of, by folder; empty for a single model.
        encoder: what the image encoder is made of, by folder; empty where it is part of the single model.
    """

    pipeline: str
    parts: Mapping[str, Kind]
    encoder: Mapping[str, Kind]

    @property
    def single(self) -> bool:
        """Whether encoder and decoder are one model in one folder."""
        return not self.parts

    @property
    def decoder_files(self) -> tuple[str, ...]:
        """Files of the decoder on the hub, relative to its folder."""
        return _FILES["diffusers"] if self.single else ("model_index.json", *_files(self.parts))

    @property
    def encoder_files(self) -> tuple[str, ...]:
        """Files of the encoder on the hub, relative to its folder."""
        return _files(self.encoder)


def _files(parts: Mapping[str, Kind]) -> tuple[str, ...]:
    return tuple(f"{part}/{file}" for part, kind in parts.items() for file in _FILES[kind])


_KANDINSKY: Mapping[str, Kind] = {"unet": "diffusers", "movq": "diffusers", "scheduler": "scheduler"}
_SD: Mapping[str, Kind] = {"unet": "diffusers", "vae": "diffusers", "scheduler": "scheduler"}
_TEXT: Mapping[str, Kind] = {"text_encoder": "transformers", "tokenizer": "tokenizer"}
_PRIOR: Mapping[str, Kind] = {"image_encoder": "transformers", "image_processor": "processor"}
_INSIDE: Mapping[str, Kind] = {"image_encoder": "transformers", "feature_extractor": "processor"}
_BARE: Mapping[str, Kind] = {"image_encoder": "transformers"}
_RAE = Family("AutoencoderRAE", {}, {})
_SD15 = Family("StableDiffusionPipeline", {**_SD, **_TEXT}, _BARE)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "kandinsky-2.2": Family("KandinskyV22Pipeline", _KANDINSKY, _PRIOR),
        "kandinsky-2.1": Family("KandinskyPipeline", {**_KANDINSKY, **_TEXT}, _PRIOR),
        "stable-unclip-2.1": Family(
            "StableUnCLIPImg2ImgPipeline",
            {**_SD, "image_normalizer": "diffusers", "image_noising_scheduler": "scheduler", **_TEXT},
            _INSIDE,
        ),
        "karlo": Family(
            "UnCLIPImageVariationPipeline",
            {
                "decoder": "diffusers",
                "text_proj": "diffusers",
                "super_res_first": "diffusers",
                "super_res_last": "diffusers",
                "decoder_scheduler": "scheduler",
                "super_res_scheduler": "scheduler",
                **_TEXT,
            },
            _INSIDE,
        ),
        "sd-image-variations": Family("StableDiffusionImageVariationPipeline", _SD, _INSIDE),
        "ip-adapter-sd15": _SD15,
        "ip-adapter-plus-sd15": _SD15,
        "ip-adapter-sdxl": Family(
            "StableDiffusionXLPipeline",
            {**_SD, **_TEXT, "text_encoder_2": "transformers", "tokenizer_2": "tokenizer"},
            _BARE,
        ),
        "rae-dinov2": _RAE,
        "rae-siglip2": _RAE,
        "rae-mae": _RAE,
    }
)
"""By the name of the adapter. `neighbours` is not among them: it has no weights."""

_SIGLIP_FAILS = (0, 42, 1)
"""The newest diffusers that was seen to fail with SigLIP 2; of a newer one, loading tells."""


def unbuildable(family: str) -> str | None:
    """Why the installed libraries cannot build a family, as far as that is known beforehand; None if they can."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version("diffusers")) if family == "rae-siglip2" else None
    return siglip_reason() if found is not None and tuple(map(int, found.groups())) <= _SIGLIP_FAILS else None


def siglip_reason() -> str:
    """Why the SigLIP 2 variant cannot be built with the installed libraries."""
    return (
        f"decoder: diffusers {version('diffusers')} cannot build the SigLIP 2 representation autoencoder with "
        f"transformers {version('transformers')}, whose SiglipVisionModel has no `vision_model`; rae-dinov2 and "
        "rae-mae do not need it."
    )


def pipeline_of(folder: Path) -> str | None:
    """The class that a folder says it holds, or None if it says nothing that can be read."""
    for name in ("model_index.json", "config.json"):
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and isinstance(content.get("_class_name"), str):
            return content["_class_name"]
    return None


def holds_pipeline(folder: Path) -> bool:
    """Whether a folder is one of the saved pipelines or models of a family."""
    return pipeline_of(folder) in {family.pipeline for family in FAMILIES.values()}


def family_of(folder: Path, adapter: Path | None = None) -> str:
    """The name of the adapter for a decoder's folder.

    Args:
        folder: of the decoder; one that says nothing is a Kandinsky 2.2.
        adapter: the file of an IP-Adapter; by default the one in the folder.

    Returns:
        A key of `FAMILIES`, or the class that the folder names, under which a plug-in may be registered.

    Raises:
        ModelError: if an IP-Adapter's file is missing or broken.
    """
    pipeline = pipeline_of(folder) or "KandinskyV22Pipeline"
    if pipeline == _SD15.pipeline:
        from steerlens.decoders.ip_adapter import adapter_file, is_plus

        return "ip-adapter-plus-sd15" if is_plus(adapter or adapter_file(folder)) else "ip-adapter-sd15"
    if pipeline == _RAE.pipeline:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return f"rae-{content.get('encoder_type')}"
    return next((name for name, family in FAMILIES.items() if family.pipeline == pipeline), pipeline)
