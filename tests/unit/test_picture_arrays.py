"""Pictures of any kind: what is accepted is converted as a file would be, and everything else is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from steerlens.errors import PictureError, UsageError
from steerlens.images import load_picture
from steerlens.picture_arrays import as_pictures

LEVELS = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
PICTURE = Image.fromarray(LEVELS)


def same(given: Any) -> list[bool]:
    return [np.array_equal(np.asarray(picture.image), LEVELS) for picture in as_pictures(given)]


@pytest.mark.parametrize(
    "given",
    [
        LEVELS,
        LEVELS / 255,
        (LEVELS / 255).astype(">f4"),
        LEVELS.transpose(2, 0, 1),
        torch.from_numpy(LEVELS),
        torch.from_numpy(LEVELS).permute(2, 0, 1),
        torch.from_numpy(LEVELS).permute(2, 0, 1).double() / 255,
        PICTURE,
    ],
    ids=lambda given: type(given).__name__,
)
def test_every_layout_is_one_and_the_same_picture(given: Any) -> None:
    assert same(given) == [True]
    assert same([given, PICTURE]) == [True, True]
    if not isinstance(given, Image.Image):
        assert same(given[None].repeat(3, 0) if isinstance(given, np.ndarray) else given[None].repeat(3, 1, 1, 1)) == (
            [True] * 3
        )


def test_files_and_pictures_may_be_mixed_and_names_stay_apart(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "cup.png")
    opened = Image.open(tmp_path / "cup.png")
    pictures = as_pictures([tmp_path / "cup.png", str(tmp_path / "cup.png"), opened, LEVELS, LEVELS])
    assert [picture.name for picture in pictures] == ["cup", "cup-2", "cup-3", "picture", "picture-2"]
    assert pictures[0].sha256 == load_picture(tmp_path / "cup.png").sha256


def test_a_batch_of_equal_sides_is_read_by_the_custom_of_its_library() -> None:
    """A picture of 3 x 3 pixels could be laid out both ways: tensors have channels first, arrays last."""
    values = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert np.array_equal(np.asarray(as_pictures(values)[0].image), values)
    assert np.array_equal(np.asarray(as_pictures(torch.from_numpy(values))[0].image), values.transpose(1, 2, 0))


def test_greyscale_and_transparency_are_treated_as_in_files() -> None:
    grey = as_pictures(LEVELS[..., 0])[0].image
    assert grey.mode == "RGB" and np.array_equal(np.asarray(grey)[..., 1], LEVELS[..., 0])
    clear = np.concatenate([LEVELS, np.zeros((12, 20, 1), np.uint8)], axis=-1)
    assert np.asarray(as_pictures(clear)[0].image).min() == 255


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (LEVELS.astype(np.float32), "divide pictures of 0 to 255"),
        (torch.from_numpy(LEVELS).float(), "divide pictures of 0 to 255"),
        (LEVELS / 127.5 - 1, "of -1 to 1"),
        (np.full((4, 4, 3), np.nan), "lie in"),
        (LEVELS.astype(np.int64), "int64"),
        (LEVELS.astype(np.uint16), "65535"),
        (LEVELS > 4, "bool"),
        (torch.from_numpy(LEVELS).int(), "int32"),
        (np.zeros((0, 3, 3)), "no picture"),
        (np.zeros(4), "shape"),
        (np.zeros((2, 8, 8, 5)), "shape"),
        (np.array([["a"]]), "not <U1"),
        (b"PNG", "bytes"),
        (7, "int is no picture"),
        ([3.5], "float is no picture"),
        ([None], "NoneType"),
    ],
)
def test_anything_else_is_refused(given: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        as_pictures(given)


def test_a_picture_that_is_too_thin_is_refused_like_a_file() -> None:
    with pytest.raises(PictureError, match="too long and thin"):
        as_pictures(np.zeros((2, 900, 3), np.uint8))
