"""The FLUX.1 Redux family: `FluxPipeline` conditioned on SigLIP's image tokens by an adapter of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names
from steerlens.decoders.family import ENCODER_IN_PIPELINE, SCHEDULER, Family, FolderPart

if TYPE_CHECKING:
    from steerlens.decoders.flux_redux.adapter import FluxReduxDecoder


def embedder_file(folder: Path) -> Path:
    """Returns the file of Redux's weights, if all parts are in one folder."""
    return folder / "image_embedder" / "diffusion_pytorch_model.safetensors"


FAMILIES: Mapping[str, Family] = {
    "flux-redux": Family(
        "FluxPipeline",
        {
            "transformer": FolderPart("diffusers", "transformer", "FluxTransformer2DModel", "bfloat16", shards=3),
            "vae": FolderPart("diffusers", "vae", "AutoencoderKL", "bfloat16"),
            "scheduler": SCHEDULER,
        },
        ENCODER_IN_PIPELINE,
        extra_weights=embedder_file,
    )
}

__all__ = ["FAMILIES", "FluxReduxDecoder"]

__getattr__, __dir__ = lazy_names(__name__)
