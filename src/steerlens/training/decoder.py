"""A decoder for any encoder: scenes embedded by it once, then the UNet of the emoji recipe conditioned on them.

The encoder stays as it is, and so does the autoencoder, which is taken from a finished pair. Only the UNet trains, from
new weights or from those of another UNet: what it knows of drawing carries over, and what embeddings mean is learnt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import distributed

from steerlens.errors import UsageError
from steerlens.progress import Progress
from steerlens.scenes import load_prepared
from steerlens.storage import file_hash, read_json, write_json
from steerlens.training.autoencoder import AutoencoderSettings, keep_autoencoder, load_autoencoder
from steerlens.training.cache import fill_cache
from steerlens.training.checkpoint import load_checkpoint
from steerlens.training.embedder import PROCESSOR, copy_encoder, link_file, opened_embedder
from steerlens.training.export import to_half, write_manifest
from steerlens.training.parallel import run_parallel
from steerlens.training.pipeline import open_run
from steerlens.training.stage import Budget, StageRecord, workers_of_group
from steerlens.training.unet import UnetSettings, load_unet, make_scheduler, train_unet, unet_file
from steerlens.zoo import locate_pair


@dataclass(frozen=True)
class DecoderRecipe:
    """Everything that decides how a decoder is trained.

    Attributes:
        minutes: of training the UNet; embedding the scenes comes before and is not counted.
        steps: steps instead of minutes (reproducible, for tests).
        scenes: scenes embedded, in parts of `part`.
        part: scenes in a part; an interrupted run loses one part at most.
        pixels: side of the picture that the encoder sees; None for its own preprocessing.
        seed: of everything random.
        autoencoder: build of the autoencoder that is taken over.
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
    """Where a run keeps the encoder's files."""
    return folder / "encoder"


def pair_folder(source: str) -> Path:
    """The folder of a finished pair: a bundled card's or one given by path.

    Raises:
        UsageError: it is neither.
    """
    located = locate_pair(source)
    if located.folder is None:
        raise UsageError(f"{source} is no folder with a decoder to go on from")
    return located.folder


def initial_weights(source: str | None) -> Path | None:
    """The UNet to go on from: that of a pair (by card or folder), or a file of weights."""
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
    """Embed the scenes that are not embedded yet, then train the UNet.

    Args:
        source: the encoder: a card's name, a folder or a hub id.
        data: folder with prepared pictures.
        folder: of the run; scenes, checkpoints, weights and grids go there.
        recipe: what to train.
        init: UNet to go on from: a card's name, a pair's folder or a file; None for new weights.
        autoencoder: the pair whose autoencoder is taken over, a card's name or a folder.
        device: "cpu" or "cuda".
        resume: continue what lies in the folder.
        workers: processes on a CPU.

    Raises:
        UsageError: the encoder, the pair or the weights cannot be had, or the folder holds a run already and `resume`
            is not set.
    """
    open_run(folder, resume)
    weights = initial_weights(init)
    write_json(folder / "recipe.json", {**asdict(recipe), "init": init, "autoencoder_of": autoencoder})
    if not (folder / "encoder.json").exists():
        origin = copy_encoder(source, encoder_folder(folder), recipe.pixels)
        files = sorted(encoder_folder(folder).glob("*.safetensors"))
        write_json(folder / "encoder.json", {**origin, "sha256": {file.name: file_hash(file) for file in files}})
    keep_autoencoder(pair_folder(autoencoder), folder, recipe.autoencoder)
    yield from run_parallel(partial(_embed_stage, data, folder, recipe, device), (), workers, folder)
    if (folder / "unet.safetensors").exists():
        step = int(load_checkpoint(folder / "unet.safetensors")[1].get("step", 0))
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
    """E, read from the cached scenes of a run."""
    with safe_open(folder / "scenes" / "held.safetensors", framework="pt") as handle:
        return int(handle.get_slice("embeds").get_shape()[1])


def export_decoder(data: Path, folder: Path, out: Path, recipe: DecoderRecipe) -> int:
    """Write the pair: the encoder's files and the decoder in float16; returns its size in bytes.

    Args:
        data: holds the prepared pictures.
        folder: of the run.
        out: the pair's folder, created if missing.
        recipe: that the run was trained with.

    Raises:
        UsageError: the UNet is not trained.
        SteerlensError: a weight does not fit into float16.
    """
    from diffusers import KandinskyV22Pipeline

    if not (folder / "unet.safetensors").exists():
        raise UsageError(f"{folder} has no trained UNet: finish it with --resume")
    for file in sorted(encoder_folder(folder).iterdir()):
        inner = "image_processor" if file.name == PROCESSOR else "image_encoder"
        (out / inner).mkdir(parents=True, exist_ok=True)
        link_file(file, out / inner / file.name)
    movq: Any = to_half(load_autoencoder(folder, recipe.autoencoder))
    unet: Any = to_half(load_unet(folder, embedding_size(folder), recipe.unet))
    pipeline: Any = KandinskyV22Pipeline(unet=unet, scheduler=make_scheduler(), movq=movq)
    pipeline.save_pretrained(out / "decoder")
    step = int(load_checkpoint(folder / "unet.safetensors")[1].get("step", 0))
    facts = {
        "recipe": asdict(recipe),
        "steps": step,
        "encoder": read_json(folder / "encoder.json", "the run"),
        "sources": list(load_prepared(data).sources),
    }
    return write_manifest(out, facts)
