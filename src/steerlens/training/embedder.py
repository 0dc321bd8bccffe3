"""Embedders: functions from pictures to the embeddings that a decoder is conditioned on, for any model.

The cache and the UNet of both recipes access an encoder only through an embedder, be it the pair's own encoder in
training or any encoder that the package opens.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.storage import write_json
from steerlens.training.encoder import EncoderSettings, embed_pictures, load_encoder
from steerlens.training.stage import autocast
from steerlens.zoo import inner_folder, locate_encoder, open_encoder, processor_folder

PROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class Embedder:
    """Function from pictures to embeddings.

    Attributes:
        embed: pictures float (N,3,64,64) in [0,1] -> embeddings float (N,E), not normalised.
        zero: returns float (E), the embedding of all-zero `pixel_values`, which serves as the unconditional embedding.
    """

    embed: Callable[[Tensor], Tensor]
    zero: Callable[[], Tensor]


def zero_embedding(encoder: Any) -> Tensor:
    """Computes the encoder's embedding of all-zero `pixel_values`, float32 (E)."""
    parameter = next(encoder.parameters())
    size = int(encoder.config.image_size)
    with torch.inference_mode():
        embeds = encoder(pixel_values=torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype))
    return embeds.image_embeds[0].float().clone()


def trained_embedder(folder: Path, projection: int, settings: EncoderSettings, device: str) -> Embedder:
    """Embedder of the encoder that a run has trained."""
    encoder = load_encoder(folder, projection, settings).to(device)
    return Embedder(lambda pictures: embed_pictures(encoder, pictures), lambda: zero_embedding(encoder))


def opened_embedder(folder: Path, device: str) -> Embedder:
    """Embedder of the encoder in a folder, under bfloat16 autocast."""
    encoder = open_encoder(locate_encoder(folder), device=device, dtype="float32")

    def embed(pictures: Tensor) -> Tensor:
        return embed_with(encoder, pictures)

    return Embedder(embed, lambda: encoder.zero_embedding()[0].float().cpu())


def embed_with(encoder: Encoder, pictures: Tensor, batch: int = 64) -> Tensor:
    """Embeds pictures (N,3,H,W) in [0,1] with the encoder's own preprocessing; float (N,E)."""
    parts: list[Tensor] = []
    for chunk in pictures.split(batch):
        with autocast(encoder.device):
            parts.append(encoder.embed(encoder.preprocess_tensor(chunk.cpu())).float())
    return torch.cat(parts)


def copy_encoder(source: str, out: Path, pixels: int | None = None) -> dict[str, Any]:
    """Copies an encoder's files into a folder, by hard links if possible; returns their origin.

    Args:
        source: a card's name, a folder or a hub id.
        out: the folder, created if missing.
        pixels: side of the encoder's square input in pixels; None for its own preprocessing.

    Raises:
        UsageError: if the encoder's preprocessing cannot be set to another size.
    """
    located = locate_encoder(source)
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(inner_folder(located.folder).iterdir()):
        if file.is_file() and file.suffix in {".json", ".safetensors"} and file.name != PROCESSOR:
            link_file(file.resolve(), out / file.name)
    processor = processor_folder(located.folder) / PROCESSOR
    if processor.is_file():
        write_json(out / PROCESSOR, resized(json.loads(processor.read_text()), pixels))
    elif pixels is not None:
        raise UsageError(f"{source} has no {PROCESSOR}, so its input size cannot be set to {pixels}.")
    return {"source": located.source, "pixels": pixels, "note": located.note}


def resized(processor: dict[str, Any], pixels: int | None) -> dict[str, Any]:
    """Preprocessing that scales the whole picture to `pixels` without cropping; unchanged if `pixels` is None."""
    if pixels is None:
        return processor
    if "size" not in processor:
        raise UsageError("this encoder's preprocessing has no size; leave out --pixels.")
    square = {"height": pixels, "width": pixels}
    size = {"shortest_edge": pixels} if "shortest_edge" in processor["size"] else square
    return {**processor, "size": size, **({"crop_size": square} if "crop_size" in processor else {})}


def link_file(source: Path, target: Path) -> None:
    """Links a file to a second path, or copies it if the file system has no links; an existing file stays."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)
