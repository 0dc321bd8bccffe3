"""Pictures of any kind that Python programs hold: paths, PIL images, arrays and tensors, one or many.

Arrays and tensors hold values in [0,1] in floating point, or whole numbers of 8 bits. Other kinds are refused: what
their values mean would be a guess.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.images import Picture, load_pictures

PictureLike = Picture | str | Path | Image.Image | np.ndarray | Tensor
"""A picture, its path, a PIL image, or values: (height, width), (height, width, C), (C, height, width)."""

PicturesLike = PictureLike | Iterable[PictureLike]
"""A picture, several, or a batch of values: (B, height, width, C) or (B, C, height, width)."""

_CHANNELS = (1, 3, 4)
"""Numbers of channels: greyscale, RGB, RGB with transparency."""

_TOLERANCE = 1e-3
"""Distance from [0,1] that rounding explains."""


def as_pictures(pictures: PicturesLike, *, name: str = "picture") -> list[Picture]:
    """Converts pictures of any kind, in order, and numbers those of equal name; files are checked at once.

    Args:
        pictures: one picture, several, or a batch of values; PIL images and values are converted like files.
        name: name of pictures without a file.

    Raises:
        UsageError: if a file does not exist, or values are of another kind, shape or range.
        PictureError: if a file is no picture.
    """
    single = isinstance(pictures, Picture | str | Path | Image.Image | np.ndarray | Tensor)
    given: Any = [pictures] if single else pictures
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise _no_picture(given)
    return load_pictures(picture for entry in given for picture in _pictures_of(entry, name))


def _pictures_of(entry: Any, name: str) -> Iterator[Picture | str | Path]:
    if isinstance(entry, Picture | str | Path):
        yield entry
    elif isinstance(entry, Image.Image):
        yield Picture.from_image(entry, _name_of(entry, name))
    elif isinstance(entry, np.ndarray | Tensor):
        for image in array_images(entry):
            yield Picture.from_image(image, name)
    else:
        raise _no_picture(entry)


def _no_picture(given: object) -> UsageError:
    return UsageError(
        f"a {type(given).__name__} is no picture; give paths, PIL images, arrays or tensors (values in [0,1] in "
        "floating point, or uint8), one or several."
    )


def _name_of(image: Image.Image, name: str) -> str:
    """Names a picture after its file, if it was opened from one."""
    file = getattr(image, "filename", "")
    return Path(file).stem if isinstance(file, str) and file else name


def array_images(values: np.ndarray | Tensor) -> list[Image.Image]:
    """Converts an array or tensor of one picture or a batch, channels last or first, to PIL images.

    Args:
        values: floating point in [0,1], or uint8; (height, width), (height, width, C), (C, height, width), or a batch
            of the latter two, with C of 1, 3 or 4. If both readings fit, tensors have their channels first, arrays
            last.

    Raises:
        UsageError: if the values are of another type, shape or range.
    """
    floating = values.is_floating_point() if isinstance(values, Tensor) else values.dtype.kind == "f"
    kind = str(values.dtype).removeprefix("torch.")
    if not floating and kind != "uint8":
        raise UsageError(
            f"pictures are floating-point values in [0,1] or uint8, not {kind}; convert whole numbers of 0 to 255 by "
            "astype('uint8') (a tensor: .to(torch.uint8)), and divide those of 16 bits by 65535."
        )
    if isinstance(values, Tensor):
        array = values.detach().cpu()
    else:  # a copy: torch cannot share memory of foreign byte order, with negative strides, or read-only
        array = torch.from_numpy(np.array(values, dtype=np.float32 if floating else np.uint8))
    if floating:
        array = _eight_bits(array.float())
    if not array.numel():
        raise UsageError(f"there is no picture in an array of shape {tuple(array.shape)}.")
    batch = _batch(array, channels_first=isinstance(values, Tensor)).contiguous().numpy()
    return [Image.fromarray(rows[..., 0] if rows.shape[-1] == 1 else rows) for rows in batch]


def _eight_bits(values: Tensor) -> Tensor:
    low, high = float(values.min()) if values.numel() else 0.0, float(values.max()) if values.numel() else 0.0
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise UsageError(
            f"floating-point values of a picture lie in [0,1], not in [{low:g},{high:g}]; divide pictures of 0 to 255 "
            "by 255, give (x + 1) / 2 of pictures of -1 to 1, undo the normalisation of a processor, and clip what a "
            "filter overshot."
        )
    return (values.clamp(0, 1) * 255).round().to(torch.uint8)


def _batch(array: Tensor, *, channels_first: bool) -> Tensor:
    """Arranges values as (B, height, width, C)."""
    if array.ndim == 2:
        return array[None, ..., None]
    if array.ndim in (3, 4):
        first, last = array.shape[-3] in _CHANNELS, array.shape[-1] in _CHANNELS
        if first or last:
            batch = array if array.ndim == 4 else array[None]
            return batch.permute(0, 2, 3, 1) if first and (channels_first or not last) else batch
    raise UsageError(
        f"an array of shape {tuple(array.shape)} is no picture: pictures are (height, width), (height, width, C) or "
        "(C, height, width) with 1, 3 or 4 channels, and batches have one dimension more, in front."
    )
