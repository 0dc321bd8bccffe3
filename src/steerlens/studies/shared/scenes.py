"""Scenes of held-out pictures as subjects of a study, for pairs trained on prepared pictures."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.images import eight_bit
from steerlens.scenes import HELD_OUT, PLAIN, TRAIN, UNSEEN, PictureSet, SceneMaker, load_prepared, prepared_folder
from steerlens.studies.shared.subjects import Subject, SubjectSet, split


def open_pictures(data: Path) -> PictureSet:
    """Loads the prepared pictures of a data folder.

    Raises:
        UsageError: if the folder holds none.
    """
    if not (prepared_folder(data) / "pictures.json").is_file():
        raise UsageError(f"{data} holds no prepared pictures; prepare them: steerlens train prepare --data {data}")
    return load_prepared(data)


def scene_subjects(
    data: Path, n_selection: int, n_reported: int, *, seed: int = 0, n_reference: int = 64
) -> SubjectSet:
    """Draws scenes of held-out pictures and unseen concepts, each with another scene of the concept in another style.

    Args:
        data: folder of prepared pictures.
        n_selection: number of scenes to select settings on.
        n_reported: number of scenes to report on, of other concepts.
        seed: of the scenes.
        n_reference: number of scenes of training pictures, over which means are taken.

    Raises:
        UsageError: if there are too few held-out pictures.
    """
    pictures = open_pictures(data)
    rows = torch.cat([pictures.rows(HELD_OUT), _one_per_concept(pictures, pictures.rows(UNSEEN))])
    generator = torch.Generator().manual_seed(1_000_003 * seed + 17)
    images = draw_scenes(pictures, rows, generator)
    others = [_sibling(pictures, int(row), generator) for row in rows.tolist()]
    other_rows = torch.tensor([row if row is not None else 0 for row in others])
    other_images = draw_scenes(pictures, other_rows, generator)
    subjects = [
        Subject(
            f"{pictures.styles[int(pictures.style[row])]}-{row}",
            image,
            pictures.concepts[int(pictures.concept[row])].name,
            None if other is None else other_image,
        )
        for row, image, other, other_image in zip(rows.tolist(), images, others, other_images, strict=True)
    ]
    selection, reported = split(subjects, n_selection, n_reported, seed)
    train = pictures.rows(TRAIN)
    picked = train[torch.randperm(train.numel(), generator=generator)[:n_reference]]
    reference = draw_scenes(pictures, picked, generator)
    return SubjectSet(tuple(selection), tuple(reported), tuple(reference), f"held-out scenes, seed {seed}")


def draw_scenes(pictures: PictureSet, rows: Tensor, generator: torch.Generator) -> list[Image.Image]:
    """Draws a plain scene without a companion for each picture."""
    maker = SceneMaker(pictures, rows, "cpu", PLAIN)
    scenes = maker.draw(len(rows), generator, rows=rows, companions=0.0)
    return [Image.fromarray(array) for array in eight_bit(scenes.pictures)]


def _one_per_concept(pictures: PictureSet, rows: Tensor) -> Tensor:
    """Rows of one picture per concept: of the held-out style, or of the last style if that has none."""
    best: dict[int, tuple[bool, int, int]] = {}
    for row in rows.tolist():
        concept, style = int(pictures.concept[row]), int(pictures.style[row])
        candidate = (style == pictures.held_style, style, row)
        if concept not in best or candidate[:2] > best[concept][:2]:
            best[concept] = candidate
    return torch.tensor(sorted(row for *_, row in best.values()), dtype=torch.int64)


def _sibling(pictures: PictureSet, row: int, generator: torch.Generator) -> int | None:
    same = (pictures.concept == pictures.concept[row]).nonzero()[:, 0]
    same = same[same != row]
    if same.numel() == 0:
        return None
    return int(same[int(torch.randint(same.numel(), (1,), generator=generator))])


def require_scenes(data: Path | None) -> Path:
    """Returns the data folder, which is required here.

    Raises:
        UsageError: if it is None.
    """
    if data is None:
        raise UsageError(
            "a study needs pictures: give --images FOLDER (concept/picture.png); or, for scenes of the bundled pair, "
            "--data DIR, prepared by: steerlens train prepare --data DIR"
        )
    return data
