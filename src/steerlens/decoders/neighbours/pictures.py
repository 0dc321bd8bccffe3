"""The pictures of an index: where they are, and reading one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steerlens.errors import ModelError, UsageError
from steerlens.images import load_picture


def folder_of(content: Mapping[str, Any], index: Path, moved_to: Path | str | None) -> Path:
    """Returns the folder of the pictures.

    Args:
        content: the parsed index.
        index: its folder.
        moved_to: where the pictures are now, if they were moved.

    Raises:
        UsageError: if they are not there.
    """
    folder = Path(content["folder"] if moved_to is None else moved_to)
    if not folder.is_dir():
        raise UsageError(f"the pictures of {index} are not in {folder} any more; say where, or index again.")
    return folder


def indexed_picture(file: Path, sha256: str, size: tuple[int, int]) -> Float[Tensor, "3 height width"]:
    """Reads a picture of an index, its centre cropped and scaled to a size, values in [0,1].

    Args:
        file: the picture.
        sha256: hash of its bytes in the index.
        size: height and width.

    Raises:
        ModelError: if the file has changed since it was indexed.
        UsageError: if it is gone.
    """
    picture = load_picture(file)
    if picture.sha256 != sha256:
        raise ModelError(f"{file} has changed since it was indexed; index the folder again.")
    (width, height), (rows, columns) = picture.image.size, size
    scale = min(width / columns, height / rows)
    left, top = (width - scale * columns) / 2, (height - scale * rows) / 2
    # Crops before scaling: the filter must not read pixels outside the crop.
    box = (round(left), round(top), round(left + scale * columns), round(top + scale * rows))
    scaled = picture.image.crop(box).resize((columns, rows), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(scaled)).permute(2, 0, 1).float() / 255
