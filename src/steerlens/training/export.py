"""Export of a trained pair as `save_pretrained` folders in float16, with vocabulary, card and manifest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from steerlens.errors import SteerlensError
from steerlens.scenes import load_prepared
from steerlens.storage import write_json
from steerlens.training.autoencoder import load_autoencoder
from steerlens.training.encoder import load_encoder
from steerlens.training.pipeline import Recipe
from steerlens.training.text import load_texts
from steerlens.training.unet import load_unet, make_scheduler


def to_half(model: Any) -> Any:
    """Converts a model to float16.

    Raises:
        SteerlensError: if a weight does not fit.
    """
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter.half()).all()):
            raise SteerlensError(f"{name} does not fit into float16.")
    return model.half()


def make_processor(size: int = 64) -> Any:
    """Builds a `CLIPImageProcessor` (PIL) that resizes to `size` and maps [0,1] to [-1,1]."""
    from transformers import CLIPImageProcessor

    half = [0.5, 0.5, 0.5]
    return CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}, image_mean=half, image_std=half
    )


def export_pair(data: Path, folder: Path, out: Path, recipe: Recipe) -> int:
    """Writes the pair; returns its size in bytes.

    Args:
        data: folder with the prepared pictures.
        folder: folder of the run.
        out: folder of the pair, created if missing.
        recipe: recipe of the run.

    Raises:
        SteerlensError: if a stage is not trained, or a weight does not fit into float16.
    """
    from diffusers import KandinskyV22Pipeline

    for stage in ("encoder", "autoencoder", "unet"):
        if not (folder / f"{stage}.safetensors").exists():
            raise SteerlensError(f"{folder} has no trained {stage}: finish its training with --resume.")
    pictures, texts = load_prepared(data), load_texts(data)
    projection = int(texts.names.shape[1])
    encoder: Any = to_half(load_encoder(folder, projection, recipe.encoder))
    movq: Any = to_half(load_autoencoder(folder, recipe.autoencoder))
    unet: Any = to_half(load_unet(folder, projection, recipe.unet))
    encoder.save_pretrained(out / "image_encoder")
    make_processor(int(encoder.config.image_size)).save_pretrained(out / "image_processor")
    pipeline: Any = KandinskyV22Pipeline(unet=unet, scheduler=make_scheduler(), movq=movq)
    pipeline.save_pretrained(out / "decoder")
    table = {"text_embeds": texts.names.half().contiguous(), "text_mean": texts.mean.half().contiguous()}
    save_file(table, out / "vocabulary.safetensors")
    (out / "vocabulary.safetensors").chmod(0o644)  # safetensors makes files readable by their owner only
    emoji = bool(pictures.sources)
    entries = [
        {"name": concept.name, "category": concept.category, ("unified" if emoji else "key"): concept.key}
        for concept in pictures.concepts
    ]
    write_json(out / "vocabulary.json", entries)
    notes = folder / "notes.md"
    facts: dict[str, Any] = {"recipe": asdict(recipe), "sources": list(pictures.sources)}
    if notes.exists():  # notes about this run, for its model card
        facts["notes"] = notes.read_text(encoding="utf-8").strip()
    return write_manifest(out, facts)


def write_manifest(out: Path, facts: dict[str, Any] | None = None) -> int:
    """Writes `manifest.json` with the size and SHA-256 of every file; returns the total size in bytes.

    Args:
        out: folder of the pair.
        facts: further entries; those of an existing manifest are kept.
    """
    path = out / "manifest.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    files: dict[str, dict[str, Any]] = {}
    for file in sorted(out.rglob("*")):
        if file.is_file() and file != path:
            content = file.read_bytes()
            files[file.relative_to(out).as_posix()] = {
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
    total = sum(int(entry["bytes"]) for entry in files.values())
    write_json(path, {**known, **(facts or {}), "files": files, "bytes": total})
    return total
