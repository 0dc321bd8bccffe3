"""Pictures of a profile: many, each opened when needed and not kept in memory."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from steerlens.images import load_picture, picture_files
from steerlens.scenes import HELD_OUT, UNSEEN
from steerlens.studies.shared import concept_of, draw_scenes, image_hash, open_pictures


@dataclass(frozen=True, eq=False)
class ProfilePicture:
    """Picture of a profile, opened when needed.

    Attributes:
        id: unique name.
        concept: name of the object that it shows.
        digest: hash of its file, or of its pixels.
        open: opens the picture, RGB.
    """

    id: str
    concept: str
    digest: str
    open: Callable[[], Image.Image] = field(repr=False)


@dataclass(frozen=True, eq=False)
class ProfilePictures:
    """The pictures of a profile.

    Attributes:
        pictures: the pictures, in the order of measurement.
        source: origin of the pictures, in words.
    """

    pictures: tuple[ProfilePicture, ...]
    source: str

    def identity(self) -> dict[str, Any]:
        """Identity of this set of pictures, as JSON values."""
        return {
            "source": self.source,
            "pictures": {picture.id: f"{picture.concept}|{picture.digest}" for picture in self.pictures},
        }


def folder_pictures(folder: Path, count: int, seed: int = 0) -> ProfilePictures:
    """Draws pictures from a folder and its subfolders; all of them if there are fewer.

    Args:
        folder: folder with `concept/picture.jpg`, or with `concept 1.jpg`, `concept 2.jpg`.
        count: largest number of pictures.
        seed: seed of the choice and the order.

    Raises:
        UsageError: if the folder does not exist, or contains no picture.
        PictureError: if a picture cannot be read.
    """
    paths = picture_files(folder)
    random.Random(seed).shuffle(paths)
    return ProfilePictures(
        tuple(_of_file(path, folder) for path in paths[:count]), f"folder {folder.name}, seed {seed}"
    )


def _of_file(path: Path, folder: Path) -> ProfilePicture:
    picture = load_picture(path)  # read now, to report a broken file before an hour of work, not after it
    inside = path.relative_to(folder).as_posix()
    return ProfilePicture(inside, concept_of(path, folder), picture.sha256[:16], lambda: load_picture(path).image)


def scene_pictures(data: Path, count: int, seed: int = 0) -> ProfilePictures:
    """Draws scenes of pictures that the bundled pair was not trained on; all of them if there are fewer.

    Args:
        data: folder with prepared pictures.
        count: largest number of scenes.
        seed: seed of the choice and of the scenes.

    Raises:
        UsageError: if the folder contains no prepared pictures.
    """
    pictures = open_pictures(data)
    rows = torch.cat([pictures.rows(HELD_OUT), pictures.rows(UNSEEN)])
    generator = torch.Generator().manual_seed(1_000_003 * seed + 29)
    rows = rows[torch.randperm(rows.numel(), generator=generator)[:count]]
    images = draw_scenes(pictures, rows, generator)
    shown = [
        _of_image(
            f"{pictures.styles[int(pictures.style[row])]}-{row}",
            pictures.concepts[int(pictures.concept[row])].name,
            image,
        )
        for row, image in zip(rows.tolist(), images, strict=True)
    ]
    return ProfilePictures(tuple(shown), f"held-out scenes, seed {seed}")


def _of_image(id: str, concept: str, image: Image.Image) -> ProfilePicture:
    return ProfilePicture(id, concept, image_hash(image), lambda: image)


def batches(pictures: Sequence[ProfilePicture], size: int) -> list[Sequence[ProfilePicture]]:
    """Splits pictures into groups of a size, in order."""
    return [pictures[start : start + size] for start in range(0, len(pictures), size)]
