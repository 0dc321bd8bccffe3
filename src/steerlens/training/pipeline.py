"""Training of a whole pair, from prepared pictures to three trained models, resumable at any time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import distributed

from steerlens.errors import UsageError
from steerlens.progress import Progress
from steerlens.scenes import load_prepared
from steerlens.storage import write_json
from steerlens.training.autoencoder import AutoencoderSettings, keep_autoencoder, load_autoencoder, train_autoencoder
from steerlens.training.cache import PART, fill_cache
from steerlens.training.checkpoint import stored_facts
from steerlens.training.embedder import trained_embedder
from steerlens.training.encoder import EncoderSettings, keep_encoder, train_encoder
from steerlens.training.parallel import run_parallel
from steerlens.training.prepared import keep_to_pictures
from steerlens.training.stage import Budget, Optimisation, StageRecord, workers_of_group
from steerlens.training.text import load_texts
from steerlens.training.unet import UnetSettings, train_unet, unet_file


@dataclass(frozen=True)
class Recipe:
    """Recipe of a pair's training.

    Attributes:
        minutes: training time, divided among the stages.
        encoder_share: share of the minutes for the encoder.
        autoencoder_share: share of the minutes for the autoencoder; the UNet takes the rest.
        steps: number of steps of every stage, instead of minutes (reproducible, for tests).
        scenes: number of cached scenes, in parts of `part`.
        part: number of scenes in a part.
        seed: seed of all random numbers.
        encoder: size and training of the encoder.
        autoencoder: size and training of the autoencoder.
        unet: size and training of the UNet.
    """

    minutes: float = 150.0
    encoder_share: float = 0.42
    autoencoder_share: float = 0.1
    steps: int | None = None
    scenes: int = 16 * PART
    part: int = PART
    seed: int = 0
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    autoencoder: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    unet: UnetSettings = field(default_factory=UnetSettings)

    def budget(self, share: float) -> Budget:
        """Budget of a stage."""
        return Budget(self.minutes * share, self.steps)


def open_run(folder: Path, resume: bool) -> None:
    """Creates the folder of a run.

    Raises:
        UsageError: if it contains a run and `resume` is False.
    """
    if not resume and folder.exists() and any(folder.glob("*.safetensors")):
        raise UsageError(f"{folder} contains a run already: give --resume to continue it, or another --out.")
    folder.mkdir(parents=True, exist_ok=True)


def _cache_stage(data: Path, folder: Path, recipe: Recipe, projection: int, device: str) -> Iterator[Progress]:
    rank, workers = workers_of_group()
    embedder = trained_embedder(folder, projection, recipe.encoder, device)
    movq = load_autoencoder(folder, recipe.autoencoder).to(device)
    pictures = load_prepared(data)
    yield from fill_cache(
        embedder,
        movq,
        pictures,
        folder,
        max(1, recipe.scenes // recipe.part),
        part_size=recipe.part,
        device=device,
        seed=recipe.seed,
        first=rank,
        stride=workers,
    )
    if workers > 1:
        distributed.barrier()


def softened(recipe: Recipe) -> Recipe:
    """Recipe at half the learning rates, for weights that are already trained."""

    def half(settings: Optimisation) -> Optimisation:
        return replace(settings, matrix_rate=settings.matrix_rate / 2, rate=settings.rate / 2)

    encoder = replace(recipe.encoder, optimisation=half(recipe.encoder.optimisation))
    unet = replace(recipe.unet, optimisation=half(recipe.unet.optimisation))
    return replace(recipe, encoder=encoder, unet=unet)


def train_pair(
    data: Path,
    folder: Path,
    recipe: Recipe,
    *,
    device: str = "cpu",
    resume: bool = False,
    workers: int = 1,
    init: Path | None = None,
    fresh_encoder: bool = False,
    kept_encoder: bool = False,
) -> Iterator[Progress]:
    """Trains the stages that are not trained yet, one after another.

    Args:
        data: folder with the folder `prepared`.
        folder: folder of the run, for checkpoints, weights and grids.
        recipe: recipe of the training.
        device: "cpu" or "cuda".
        resume: True to continue the run in the folder.
        workers: number of processes on a CPU.
        init: folder of a finished pair to continue from, at half the learning rates; its autoencoder is frozen.
        fresh_encoder: with `init`, train the encoder from scratch (it may have other sizes) and continue only from the
            pair's decoder, at the full learning rates, since the UNet must learn the new embeddings.
        kept_encoder: with `init`, freeze the pair's encoder too, and train only the UNet.

    Raises:
        UsageError: if the pair to continue from does not exist, or has other sizes.
        UsageError: if `fresh_encoder` or `kept_encoder` is given without `init`, or both are.
        UsageError: if the folder contains a run and `resume` is False, or a run of other pictures.
    """
    if (fresh_encoder or kept_encoder) and init is None:
        raise UsageError("--fresh-encoder and --kept-encoder need a pair to continue from: add --init PAIR.")
    if fresh_encoder and kept_encoder:
        raise UsageError("--fresh-encoder and --kept-encoder exclude each other: give only one of them.")
    open_run(folder, resume)
    pictures, texts = load_prepared(data), load_texts(data)
    keep_to_pictures(folder, pictures, resume=resume)
    write_json(folder / "recipe.json", asdict(recipe))
    projection, seed = int(texts.names.shape[1]), recipe.seed
    unet_share = 1 - recipe.encoder_share - recipe.autoencoder_share
    if init is not None:
        keep_autoencoder(init, folder, recipe.autoencoder)
        unet_share = 1 - recipe.encoder_share
        if not fresh_encoder:
            recipe = softened(recipe)
    if init is not None and kept_encoder:
        keep_encoder(init, folder, projection, recipe.encoder)
        unet_share = 1.0
    encoder_from = None if fresh_encoder else init
    stages: list[tuple[str, Any]] = [
        (
            "encoder",
            partial(
                train_encoder,
                pictures,
                texts,
                folder,
                recipe.budget(recipe.encoder_share),
                recipe.encoder,
                device,
                seed,
                resume,
                init=encoder_from,
            ),
        ),
        (
            "autoencoder",
            partial(
                train_autoencoder,
                pictures,
                folder,
                recipe.budget(recipe.autoencoder_share),
                recipe.autoencoder,
                device,
                seed,
                resume,
            ),
        ),
        ("scenes", partial(_cache_stage, data, folder, recipe, projection, device)),
        (
            "unet",
            partial(
                train_unet,
                folder,
                projection,
                recipe.budget(unet_share),
                recipe.unet,
                partial(trained_embedder, folder, projection, recipe.encoder, device),
                recipe.autoencoder,
                device,
                seed,
                resume,
                init=None if init is None else unet_file(init),
            ),
        ),
    ]
    start = time.monotonic()
    for name, stage in stages:
        if (folder / f"{name}.safetensors").exists():
            step = int(stored_facts(folder / f"{name}.safetensors").get("step", 0))
            yield StageRecord(name, step, time.monotonic() - start, 1.0, {}, done=True).progress()
            continue
        yield from run_parallel(stage, (), workers, folder)
