"""Training of a decoder for any encoder: embeds scenes once, and trains the UNet of the emoji recipe on them.

The encoder is frozen, and so is the autoencoder of a finished pair. Only the UNet is trained, from random weights or
from those of another UNet, whose ability to draw carries over while it learns the new embeddings. Beside it, names and
texts are given directions in the encoder's space; see `training.concepts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from steerlens.errors import UsageError
from steerlens.loading import load
from steerlens.progress import Progress
from steerlens.scenes import PictureSet, load_prepared
from steerlens.storage import file_hash, read_json, write_json
from steerlens.training.autoencoder import AutoencoderSettings, keep_autoencoder, load_autoencoder
from steerlens.training.cache import fill_cache, load_cache
from steerlens.training.checkpoint import stored_facts, stored_shape
from steerlens.training.concepts import (
    embed_pictures,
    fit_prototypes,
    fit_text_map,
    load_embeddings,
    write_vocabulary,
)
from steerlens.training.decoder_card import source_counts, write_folder_card
from steerlens.training.embedder import PROCESSOR, copy_encoder, link_file, opened_embedder
from steerlens.training.export import to_half, write_manifest
from steerlens.training.parallel import run_parallel
from steerlens.training.pipeline import open_run
from steerlens.training.prepared import keep_to_pictures
from steerlens.training.stage import Budget, StageRecord, workers_of_group
from steerlens.training.text import load_texts, text_file
from steerlens.training.unet import UnetSettings, load_unet, make_scheduler, train_unet, unet_file
from steerlens.zoo import SENTENCE_SIZE, locate_encoder, locate_pair, make_probe, open_encoder


@dataclass(frozen=True)
class DecoderRecipe:
    """Recipe of a decoder's training.

    Attributes:
        minutes: training time of the UNet, without the time to embed the scenes.
        steps: number of steps, instead of minutes (reproducible, for tests).
        scenes: number of embedded scenes, in parts of `part`.
        part: number of scenes in a part; an interrupted run loses at most one part.
        pixels: side of the encoder's input in pixels; None for the encoder's own preprocessing.
        seed: seed of all random numbers.
        autoencoder: architecture of the finished pair's autoencoder.
        unet: size and training of the UNet.
    """

    minutes: float = 150.0
    steps: int | None = None
    scenes: int = 65_536
    part: int = 1024
    pixels: int | None = None
    seed: int = 0
    autoencoder: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    unet: UnetSettings = field(default_factory=UnetSettings)


def encoder_folder(folder: Path) -> Path:
    """Folder of the encoder's files in a run."""
    return folder / "encoder"


def pair_folder(source: str) -> Path:
    """Folder of a finished pair, given by the name of a bundled card or by path.

    Raises:
        UsageError: if it is neither.
    """
    located = locate_pair(source)
    if located.folder is None:
        raise UsageError(f"{source} is not a folder with a decoder to continue from.")
    return located.folder


def initial_weights(source: str | None) -> Path | None:
    """File of the UNet to continue from: that of a pair (by card or folder), or a file of weights."""
    if source is None:
        return None
    return Path(source) if source.endswith(".safetensors") else unet_file(pair_folder(source))


def _embed_stage(data: Path, folder: Path, recipe: DecoderRecipe, device: str) -> Iterator[Progress]:
    rank, workers = workers_of_group()
    yield from fill_cache(
        opened_embedder(encoder_folder(folder), device),
        load_autoencoder(folder, recipe.autoencoder).to(device),
        load_prepared(data),
        folder,
        max(1, recipe.scenes // recipe.part),
        part_size=min(recipe.part, recipe.scenes),
        device=device,
        seed=recipe.seed,
        first=rank,
        stride=workers,
    )
    if workers > 1:
        distributed.barrier()


def _concepts_stage(data: Path, folder: Path, recipe: DecoderRecipe, device: str) -> Iterator[Progress]:
    rank, workers = workers_of_group()
    embedder = opened_embedder(encoder_folder(folder), device)
    yield from embed_pictures(embedder, load_prepared(data), folder, part=recipe.part, first=rank, stride=workers)
    if workers > 1:
        distributed.barrier()


def train_decoder(
    source: str,
    data: Path,
    folder: Path,
    recipe: DecoderRecipe,
    *,
    init: str | None = None,
    autoencoder: str = "emoji",
    device: str = "cpu",
    resume: bool = False,
    workers: int = 1,
) -> Iterator[Progress]:
    """Embeds the scenes and pictures that are not embedded yet, then trains the UNet.

    Args:
        source: the encoder: a card's name, a folder or a hub id.
        data: folder with prepared pictures.
        folder: folder of the run, for scenes, checkpoints, weights and grids.
        recipe: recipe of the training.
        init: UNet to continue from: a card's name, a pair's folder or a file; None for random weights.
        autoencoder: pair whose autoencoder to use: a card's name or a folder.
        device: "cpu" or "cuda".
        resume: True to continue the run in the folder.
        workers: number of processes on a CPU.

    Raises:
        UsageError: if the encoder, the pair or the weights are not available, the folder contains a run and `resume`
            is False, or a run of other pictures.
    """
    open_run(folder, resume)
    keep_to_pictures(folder, load_prepared(data), resume=resume)
    weights = initial_weights(init)
    known = read_json(folder / "recipe.json", "the run") if (folder / "recipe.json").exists() else {}
    start = {"init": known.get("init", init), "autoencoder_of": known.get("autoencoder_of", autoencoder)}
    write_json(folder / "recipe.json", {**asdict(recipe), **start})
    if not (folder / "encoder.json").exists():
        origin = copy_encoder(source, encoder_folder(folder), recipe.pixels)
        files = sorted(encoder_folder(folder).glob("*.safetensors"))
        write_json(folder / "encoder.json", {**origin, "sha256": {file.name: file_hash(file) for file in files}})
    keep_autoencoder(pair_folder(autoencoder), folder, recipe.autoencoder)
    yield from run_parallel(partial(_embed_stage, data, folder, recipe, device), (), workers, folder)
    yield from run_parallel(partial(_concepts_stage, data, folder, recipe, device), (), workers, folder)
    if (folder / "unet.safetensors").exists():
        step = int(stored_facts(folder / "unet.safetensors").get("step", 0))
        yield StageRecord("unet", step, 0.0, 1.0, {}, done=True).progress()
        return
    stage = partial(
        train_unet,
        folder,
        embedding_size(folder),
        Budget(recipe.minutes, recipe.steps),
        recipe.unet,
        partial(opened_embedder, encoder_folder(folder), device),
        recipe.autoencoder,
        device,
        recipe.seed,
        resume,
        init=weights,
    )
    yield from run_parallel(stage, (), workers, folder)


def embedding_size(folder: Path) -> int:
    """Reads the embedding size E from the cached scenes of a run.

    Args:
        folder: folder of the run.

    Raises:
        StoreError: if the scenes cannot be read.
    """
    return stored_shape(folder / "scenes" / "held.safetensors", "embeds")[1]


def export_decoder(data: Path, folder: Path, out: Path, recipe: DecoderRecipe) -> int:
    """Writes the pair: the encoder's files, the decoder in float16, names, text map and probe; returns its bytes.

    Args:
        data: folder with the prepared pictures.
        folder: folder of the run.
        out: folder of the pair, created if missing.
        recipe: recipe of the run.

    Raises:
        UsageError: if the UNet is not trained.
        SteerlensError: if a weight does not fit into float16.
    """
    from diffusers import KandinskyV22Pipeline

    if not (folder / "unet.safetensors").exists():
        raise UsageError(f"{folder} has no trained UNet: finish its training with --resume.")
    for file in sorted(encoder_folder(folder).iterdir()):
        inner = "image_processor" if file.name == PROCESSOR else "image_encoder"
        (out / inner).mkdir(parents=True, exist_ok=True)
        link_file(file, out / inner / file.name)
    movq: Any = to_half(load_autoencoder(folder, recipe.autoencoder))
    unet: Any = to_half(load_unet(folder, embedding_size(folder), recipe.unet))
    pipeline: Any = KandinskyV22Pipeline(unet=unet, scheduler=make_scheduler(), movq=movq)
    pipeline.save_pretrained(out / "decoder")
    encoder = open_encoder(locate_encoder(out), name=Path(read_json(folder / "encoder.json", "the run")["source"]).name)
    side = unet.config.sample_size * 2 ** (len(recipe.autoencoder.channels) - 1)
    write_folder_card(out, encoder.spec, (side, side))
    pictures, cache = load_prepared(data), load_cache(folder)
    mean = cache.embeds[:_OF_MEAN].float().mean(dim=0)
    names = _write_names(data, folder, out, pictures, mean)
    pair = load(out, device="cpu", dtype="float32")
    make_probe(pair.encoder, pair.decoder, cache.held_pictures[:_OF_PROBE]).save(out)
    trained = stored_facts(folder / "unet.safetensors")
    facts = {
        "recipe": asdict(recipe),
        "init": read_json(folder / "recipe.json", "the run").get("init"),
        "steps": int(trained.get("step", 0)),
        "minutes": round(float(trained.get("seconds", 0)) / 60, 1),
        "encoder": read_json(folder / "encoder.json", "the run"),
        "names": names,
        "counts": source_counts(pictures),
        "sources": list(pictures.sources),
    }
    return write_manifest(out, facts)


_OF_MEAN = 4096
"""Scenes whose mean embedding is the mean."""

_OF_PROBE = 24
"""Held-out scenes that come with the pair, to measure whether the decoder fits."""


def _write_names(data: Path, folder: Path, out: Path, pictures: PictureSet, mean: Tensor) -> dict[str, float]:
    """Writes prototypes and text map into the pair's folder; returns figures of their fit."""
    if not any((folder / "concepts").glob("part-*.safetensors")):  # a run of an earlier version
        return {}
    embeds = load_embeddings(folder, pictures)
    vocabulary = fit_prototypes(embeds, pictures, mean)
    texts = load_texts(data).names if text_file(data).exists() else torch.zeros(0, 0)
    # Names embedded by another text model than the package's have no map.
    text_map = fit_text_map(embeds, pictures, texts, mean) if texts.shape[1] == SENTENCE_SIZE else None
    write_vocabulary(out, vocabulary, text_map)
    facts = {"prototypes": float(len(vocabulary.names))}
    if text_map is not None:
        facts |= {"text_map_penalty": text_map.penalty, "text_map_median_rank": text_map.median_rank}
    return facts
