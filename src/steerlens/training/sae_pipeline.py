"""The whole training of a sparse autoencoder: pictures, values, training, figures, export."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.images import eight_bit, load_picture, picture_files
from steerlens.progress import Progress
from steerlens.saes import EMBEDDING, SparseAutoencoder
from steerlens.scenes import HELD_OUT, PLAIN, TRAIN, UNSEEN, SceneMaker
from steerlens.sites import Site
from steerlens.storage import is_plain_name
from steerlens.storage.parameters import weights_hash
from steerlens.studies.shared import open_pictures
from steerlens.training.sae import SaeRecipe, finished_sae, train_sae
from steerlens.training.sae_export import SaeFigures, measure_sae, write_sae
from steerlens.training.sae_run import PictureListing, open_sae_run
from steerlens.training.sae_values import Place, Tokens, ValueOptions, collect_values
from steerlens.training.stage import Budget
from steerlens.zoo.identity import encoder_identity

Opener = Callable[[], Image.Image]
"""Function that opens a picture."""

_HELD_OUT_SHARE = 0.1
"""Share of a folder's pictures that figures are measured on."""

_READ = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "head")
"""Kinds of sites that an autoencoder reads."""

_VALUES, _HELD_OUT = "values", "held-out"
"""Folders of values to train on and to measure on."""

_SCENES_AT_ONCE = 256
"""Scenes composed at once."""


@dataclass(frozen=True)
class SaePictures:
    """Pictures of a training.

    Attributes:
        train: those to train on.
        held_out: those that figures are measured on.
        source: their origin, in words.
        digest: hash that tells them from other pictures.
        listing: files of the folder; None for scenes.
    """

    train: tuple[Opener, ...]
    held_out: tuple[Opener, ...]
    source: str
    digest: str = ""
    listing: PictureListing | None = None


def folder_of_pictures(folder: Path, count: int, seed: int = 0) -> SaePictures:
    """Chooses pictures of a folder and its subfolders at random, and holds a tenth of them out.

    Args:
        folder: the folder.
        count: largest number of pictures.
        seed: seed of the choice.

    Raises:
        UsageError: if the folder does not exist, or contains fewer than two pictures.
    """
    paths = picture_files(folder)
    names = frozenset(str(path.relative_to(folder)) for path in paths)
    random.Random(seed).shuffle(paths)
    openers = tuple(_opener(path) for path in paths[:count])
    n_held_out = max(1, round(_HELD_OUT_SHARE * len(openers)))
    if len(openers) <= n_held_out:
        raise UsageError(
            f"{folder} contains one picture; an autoencoder needs many to train on, and others to measure."
        )
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in paths[:count]}
    digest = hashlib.sha256()
    for name, size in sizes.items():  # names and sizes: reading thousands of files would take as long as training
        digest.update(f"{name} {size}\n".encode("utf-8", "surrogateescape"))
    return SaePictures(
        openers[n_held_out:],
        openers[:n_held_out],
        f"folder {folder.name}",
        digest.hexdigest(),
        PictureListing(folder, names, sizes),
    )


def _opener(path: Path) -> Opener:
    return lambda: load_picture(path).image


def scenes_of_data(data: Path, count: int, seed: int = 0) -> SaePictures:
    """Composes scenes of prepared pictures: of training pictures to train on, of all others to measure.

    Args:
        data: folder with prepared pictures.
        count: number of scenes; a tenth of them measure.
        seed: seed of the scenes.

    Raises:
        UsageError: if the folder contains no prepared pictures.
    """
    pictures = open_pictures(data)
    n_held_out = max(1, round(_HELD_OUT_SHARE * count))
    held_out_rows = torch.cat([pictures.rows(HELD_OUT), pictures.rows(UNSEEN)])
    digest = hashlib.sha256()

    def compose(rows: Tensor, number: int, mark: int) -> tuple[Opener, ...]:
        maker = SceneMaker(pictures, rows, "cpu", PLAIN)
        generator = torch.Generator().manual_seed(1_000_003 * seed + mark)
        images: list[Image.Image] = []
        while len(images) < number:
            scenes = maker.draw(min(_SCENES_AT_ONCE, number - len(images)), generator)
            arrays = eight_bit(scenes.pictures)
            digest.update(arrays.tobytes())
            images.extend(Image.fromarray(array) for array in arrays)
        return tuple(_constant(image) for image in images)

    train = compose(pictures.rows(TRAIN), max(1, count - n_held_out), 41)
    held_out = compose(held_out_rows, n_held_out, 43)
    return SaePictures(train, held_out, "scenes of prepared pictures", digest.hexdigest())


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
        Site("feature", name=self.name, index=0)  # refuses a name that cannot be in a site
        # The folder of the finished autoencoder is called so.
        if not is_plain_name(self.name) or self.name in (_VALUES, _HELD_OUT):
            raise UsageError(f"{self.name!r} cannot be the name of an autoencoder, whose folder is called so.")
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
        UsageError: if the model has no such site, `out` contains another run, or a run and `resume` is False.
    """
    spec, place = encoder.spec, run.place
    if isinstance(place, Site):
        place.check(spec.n_layers, spec.n_heads)
    open_sae_run(out, _identity(encoder, pictures, run), pictures.listing, resume=resume)
    options = ValueOptions(place, run.tokens, run.per_picture, run.recipe.seed)
    values = yield from collect_values(encoder, pictures.train, options, out / _VALUES)
    held_out = yield from collect_values(encoder, pictures.held_out, options, out / _HELD_OUT, stage="held-out values")
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
        "model": {**encoder_identity(encoder), "weights": weights_hash(encoder)},
        "pictures_hash": pictures.digest,
        "encoder": encoder.spec.name,
        "place": str(run.place),
        "recipe": asdict(run.recipe),
        "tokens": run.tokens,
        "per_picture": run.per_picture,
        "pictures": [len(pictures.train), len(pictures.held_out), pictures.source],
    }
