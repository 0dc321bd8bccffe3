"""The whole training of a sparse autoencoder: pictures, values, training, figures, export."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.images import eight_bit, load_picture, picture_files
from steerlens.progress import Progress
from steerlens.saes import EMBEDDING, SparseAutoencoder
from steerlens.scenes import HELD_OUT, PLAIN, TRAIN, UNSEEN, SceneMaker
from steerlens.sites import Site
from steerlens.storage import write_json
from steerlens.studies.shared import open_pictures
from steerlens.training.sae import SaeRecipe, finished_sae, train_sae
from steerlens.training.sae_export import SaeFigures, measure_sae, write_sae
from steerlens.training.sae_values import Place, Tokens, ValueOptions, collect_values
from steerlens.training.stage import Budget

Opener = Callable[[], Image.Image]
"""Function that opens a picture."""

_HELD_SHARE = 0.1
"""Share of a folder's pictures that figures are measured on."""

_READ = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "head")
"""Kinds of sites that an autoencoder reads."""

_RUN = "run.json"
"""File with everything that decides the values and weights of a run."""

_DRAWN = 256
"""Scenes drawn at once."""


@dataclass(frozen=True)
class SaePictures:
    """Pictures of a training.

    Attributes:
        train: those to train on.
        held_out: those that figures are measured on.
        source: their origin, in words.
    """

    train: tuple[Opener, ...]
    held_out: tuple[Opener, ...]
    source: str


def folder_of_pictures(folder: Path, count: int, seed: int = 0) -> SaePictures:
    """Draws pictures from a folder and its subfolders, and holds a tenth of them out.

    Args:
        folder: the folder.
        count: largest number of pictures.
        seed: seed of the choice.

    Raises:
        UsageError: if the folder does not exist, or holds fewer than two pictures.
    """
    paths = picture_files(folder)
    random.Random(seed).shuffle(paths)
    openers = tuple(_opener(path) for path in paths[:count])
    held = max(1, round(_HELD_SHARE * len(openers)))
    if len(openers) <= held:
        raise UsageError(f"{folder} holds one picture; an autoencoder needs many to train on, and others to measure.")
    return SaePictures(openers[held:], openers[:held], f"folder {folder.name}")


def _opener(path: Path) -> Opener:
    return lambda: load_picture(path).image


def scenes_of_data(data: Path, count: int, seed: int = 0) -> SaePictures:
    """Draws scenes of prepared pictures: of training pictures to train on, of all others to measure.

    Args:
        data: folder with prepared pictures.
        count: number of scenes; a tenth of them measure.
        seed: seed of the scenes.

    Raises:
        UsageError: if the folder holds no prepared pictures.
    """
    pictures = open_pictures(data)
    held = max(1, round(_HELD_SHARE * count))
    rows = {"train": pictures.rows(TRAIN), "held": torch.cat([pictures.rows(HELD_OUT), pictures.rows(UNSEEN)])}
    makers = {name: SceneMaker(pictures, of_split, "cpu", PLAIN) for name, of_split in rows.items()}

    def draw(name: str, number: int, mark: int) -> tuple[Opener, ...]:
        generator = torch.Generator().manual_seed(1_000_003 * seed + mark)
        images: list[Image.Image] = []
        while len(images) < number:
            drawn = makers[name].draw(min(_DRAWN, number - len(images)), generator)
            images.extend(Image.fromarray(array) for array in eight_bit(drawn.pictures))
        return tuple(_constant(image) for image in images)

    return SaePictures(draw("train", max(1, count - held), 41), draw("held", held, 43), "scenes of prepared pictures")


def _constant(image: Image.Image) -> Opener:
    return lambda: image


@dataclass(frozen=True)
class SaeRun:
    """Settings of a run.

    Attributes:
        place: where the autoencoder reads.
        recipe: settings of the training.
        budget: duration of the training.
        tokens: tokens whose values are taken.
        per_picture: tokens drawn from each picture; 0 for all of them.
        name: name of the autoencoder.
    """

    place: Place
    recipe: SaeRecipe
    budget: Budget
    tokens: Tokens = "all"
    per_picture: int = 0
    name: str = "sae"

    def __post_init__(self) -> None:
        if isinstance(self.place, Site) and self.place.kind not in _READ:
            raise UsageError(f"a sparse autoencoder cannot be trained at {self.place}; name one of {', '.join(_READ)}.")


def run_sae(
    encoder: Encoder, model: str, pictures: SaePictures, run: SaeRun, out: Path, *, resume: bool = False
) -> Generator[Progress, None, tuple[SparseAutoencoder, SaeFigures]]:
    """Trains an autoencoder and writes it to a folder of its name in `out`; `StageRecord`s are payloads of progress.

    Args:
        encoder: the encoder.
        model: its name in the config and the card.
        pictures: the pictures.
        run: settings of the run.
        out: folder of the run.
        resume: True to continue an interrupted run.

    Raises:
        UsageError: if the model has no such site, `out` holds another run, or a run and `resume` is False.
    """
    spec, place = encoder.spec, run.place
    if isinstance(place, Site):
        place.check(spec.n_layers, spec.n_heads)
    identity = _identity(encoder, pictures, run)
    _open(out, identity, resume)
    options = ValueOptions(place, run.tokens, run.per_picture, run.recipe.seed)
    values = yield from collect_values(encoder, pictures.train, options, out / "values")
    held_out = yield from collect_values(encoder, pictures.held_out, options, out / "held-out", stage="held-out values")
    trained = yield from train_sae(values, held_out, run.recipe, out, run.budget, device=encoder.device, resume=resume)
    yield Progress("figures", 0, 1)
    sae = finished_sae(trained, values, place, run.name, None if place == EMBEDDING else run.tokens)
    figures = measure_sae(encoder, sae, pictures.held_out)
    duration = {"steps": run.budget.steps} if run.budget.steps is not None else {"minutes": run.budget.minutes}
    facts = {**duration, **asdict(run.recipe), "pictures": len(pictures.train), "values": len(values)}
    write_sae(sae, out / run.name, model=model, figures=figures, training={**facts, "source": pictures.source})
    yield Progress("figures", 1, 1)
    return sae, figures


def _identity(encoder: Encoder, pictures: SaePictures, run: SaeRun) -> dict[str, Any]:
    """Everything that decides values and weights, except for the duration, as JSON values."""
    return {
        "encoder": encoder.spec.name,
        "place": str(run.place),
        "recipe": asdict(run.recipe),
        "tokens": run.tokens,
        "per_picture": run.per_picture,
        "pictures": [len(pictures.train), len(pictures.held_out), pictures.source],
    }


def _open(out: Path, identity: dict[str, Any], resume: bool) -> None:
    path = out / _RUN
    if path.exists() and not resume:
        raise UsageError(f"{out} contains a run already: give --resume to continue it, or another --out.")
    if path.exists() and json.loads(path.read_text()) != identity:
        raise UsageError(f"{out} contains a run with other options; give those again, or another --out.")
    if not path.exists() and resume:
        raise UsageError(f"{out} contains no run to continue; leave out --resume to start one.")
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, identity)
