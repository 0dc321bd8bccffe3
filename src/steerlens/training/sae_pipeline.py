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

from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.images import eight_bit, load_picture, picture_files
from steerlens.progress import Progress
from steerlens.saes import EMBEDDING, SparseAutoencoder
from steerlens.scenes import HELD_OUT, PLAIN, TRAIN, UNSEEN, SceneMaker
from steerlens.sites import Site
from steerlens.storage import is_plain_name, read_json, write_json
from steerlens.storage.parameters import weights_hash
from steerlens.studies.shared import open_pictures
from steerlens.training.sae import SaeRecipe, finished_sae, train_sae
from steerlens.training.sae_export import SaeFigures, measure_sae, write_sae
from steerlens.training.sae_values import Place, Tokens, ValueOptions, collect_values
from steerlens.training.stage import Budget
from steerlens.zoo.identity import encoder_identity

Opener = Callable[[], Image.Image]
"""Function that opens a picture."""

_HELD_SHARE = 0.1
"""Share of a folder's pictures that figures are measured on."""

_READ = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "head")
"""Kinds of sites that an autoencoder reads."""

_VALUES, _HELD_OUT = "values", "held-out"
"""Folders of values to train on and to measure on."""

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
        digest: hash that tells them from other pictures.
    """

    train: tuple[Opener, ...]
    held_out: tuple[Opener, ...]
    source: str
    digest: str = ""


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
    digest = hashlib.sha256()
    for path in paths[:count]:  # names and sizes: reading thousands of files would take as long as training
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode("utf-8", "surrogateescape"))
    return SaePictures(openers[held:], openers[:held], f"folder {folder.name}", digest.hexdigest())


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

    digest = hashlib.sha256()

    def draw(name: str, number: int, mark: int) -> tuple[Opener, ...]:
        generator = torch.Generator().manual_seed(1_000_003 * seed + mark)
        images: list[Image.Image] = []
        while len(images) < number:
            drawn = makers[name].draw(min(_DRAWN, number - len(images)), generator)
            arrays = eight_bit(drawn.pictures)
            digest.update(arrays.tobytes())
            images.extend(Image.fromarray(array) for array in arrays)
        return tuple(_constant(image) for image in images)

    shown, measured = draw("train", max(1, count - held), 41), draw("held", held, 43)
    return SaePictures(shown, measured, "scenes of prepared pictures", digest.hexdigest())


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
        UsageError: if the model has no such site, `out` holds another run, or a run and `resume` is False.
    """
    spec, place = encoder.spec, run.place
    if isinstance(place, Site):
        place.check(spec.n_layers, spec.n_heads)
    identity = _identity(encoder, pictures, run)
    _open(out, identity, resume)
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


def _open(out: Path, identity: dict[str, Any], resume: bool) -> None:
    path = out / _RUN
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; give another --out.")
    if path.exists() and not resume:
        raise UsageError(f"{out} contains a run already: give --resume to continue it, or another --out.")
    # Runs of earlier versions hashed neither the model nor the pictures.
    recorded = read_json(path, f"the run in {out}") if path.exists() else {}
    if path.exists() and (not recorded or any(identity.get(key) != value for key, value in recorded.items())):
        raise UsageError(f"{out} contains a run with other options; give those again, or another --out.")
    if not path.exists() and resume:
        raise UsageError(f"{out} contains no run to continue; leave out --resume to start one.")
    write_json(path, identity)
