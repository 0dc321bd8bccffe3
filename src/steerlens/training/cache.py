"""Cache of embeddings and latents of many scenes, computed once: all data that the UNet's training needs.

The cache is written in parts, so that an interruption loses at most one part, and several processes can share the work.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerlens.errors import SteerlensError
from steerlens.progress import Progress
from steerlens.scenes import HELD_OUT, PLAIN, TRAIN, PictureSet, SceneMaker
from steerlens.training.autoencoder import SCENE_AUGMENT, encode_latents
from steerlens.training.checkpoint import load_checkpoint, save_checkpoint
from steerlens.training.embedder import Embedder
from steerlens.training.stage import StageRecord

PART = 4096
BATCH = 128


@dataclass(frozen=True)
class SceneCache:
    """Training data of the UNet.

    Attributes:
        embeds: float16 (N,E), unnormalised image embeddings of scenes.
        latents: float16 (N,4,16,16), their latents, of unit variance.
        zero: float (E), the embedding of all-zero `pixel_values`, which serves as the unconditional embedding.
        held_embeds: float (M,E), embeddings of plain scenes of held-out pictures.
        held_pictures: uint8 (M,3,64,64), these scenes.
    """

    embeds: Tensor
    latents: Tensor
    zero: Tensor
    held_embeds: Tensor
    held_pictures: Tensor


def fill_cache(
    embedder: Embedder,
    movq: Any,
    pictures: PictureSet,
    folder: Path,
    parts: int,
    *,
    part_size: int = PART,
    device: torch.device | str = "cpu",
    seed: int = 0,
    first: int = 0,
    stride: int = 1,
) -> Iterator[Progress]:
    """Computes the missing parts; yields a record after each.

    Args:
        embedder: embedder of the scenes.
        movq: the trained autoencoder, on the device.
        pictures: prepared pictures; training pictures make up the parts, held-out pictures the small last part.
        folder: folder of the run; parts go to its subfolder `scenes`.
        parts: number of parts.
        part_size: number of scenes in a part.
        device: device to compute on.
        seed: seed of the scenes.
        first: first part of this process.
        stride: number of processes that share the work.
    """
    start = time.monotonic()
    maker = SceneMaker(pictures, pictures.rows(TRAIN), device, SCENE_AUGMENT)
    held_out = pictures.rows(HELD_OUT)
    held_out = held_out if held_out.numel() > 1 else pictures.rows(TRAIN)
    path = folder / "scenes" / "held.safetensors"
    if first == 0 and not path.exists():
        plain = SceneMaker(pictures, held_out, device, PLAIN)
        scenes = plain.draw(128, torch.Generator().manual_seed(79)).pictures
        tensors = {
            "embeds": embedder.embed(scenes),
            "pictures": (scenes * 255).round().to(torch.uint8),
            "zero": embedder.zero(),
        }
        save_checkpoint(path, tensors, {})
    for number in range(first, parts, stride):
        path = folder / "scenes" / f"part-{number:03d}.safetensors"
        if not path.exists():
            generator = torch.Generator().manual_seed((seed + 5) * 1_000_003 + number)
            embeds: list[Tensor] = []
            latents: list[Tensor] = []
            for begin in range(0, part_size, BATCH):
                scenes = maker.draw(min(BATCH, part_size - begin), generator).pictures
                embeds.append(embedder.embed(scenes).half().cpu())
                latents.append(encode_latents(movq, scenes).half().cpu())
            save_checkpoint(path, {"embeds": torch.cat(embeds), "latents": torch.cat(latents)}, {})
        done = number + stride >= parts
        seconds = time.monotonic() - start
        yield StageRecord("scenes", number + 1, seconds, min(1.0, (number + 1) / parts), {}, done=done).progress()


def load_cache(folder: Path) -> SceneCache:
    """Loads all parts.

    Raises:
        SteerlensError: if there are none.
    """
    paths = sorted((folder / "scenes").glob("part-*.safetensors"))
    if not paths or not (folder / "scenes" / "held.safetensors").exists():
        raise SteerlensError(f"there are no cached scenes in {folder / 'scenes'}: continue the training with --resume.")
    parts = [load_checkpoint(path)[0] for path in paths]
    held_out = load_checkpoint(folder / "scenes" / "held.safetensors")[0]
    return SceneCache(
        torch.cat([part["embeds"] for part in parts]),
        torch.cat([part["latents"] for part in parts]),
        held_out["zero"],
        held_out["embeds"],
        held_out["pictures"],
    )
