"""Geometry of preprocessing: the transform between pixels of a picture, pixels of the model's input, and patches.

Every known preprocessing resizes a picture and takes a window of it, cropped or padded. So each axis of a point is
scaled and shifted,

    x_input = x_picture * resized_width / width - left

which `Geometry` computes for pictures of any size, as a `View`. It is read from the processor and confirmed on marked
pictures; preprocessing that follows no such rule is `unknown`, and features that need the geometry are refused.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steerlens.errors import UsageError

Resize = Literal["none", "stretch", "cover", "contain", "unknown"]

_PROBES = ((96, 64), (64, 96), (80, 80))
"""Widths and heights of marked pictures, a square among them: some processors that do not crop accept squares only."""

_TOLERANCE = 0.03
"""Largest error of a marked coordinate, as a share of the picture's side: crops differ by more, rounding by less."""


@dataclass(frozen=True)
class View:
    """Position of a picture in the model's input.

    Attributes:
        picture: width and height of the picture, in pixels.
        box: left, top, right and bottom edge of the input, in pixels of the picture; beyond it where there is padding.
        window: height and width of the input, in pixels.
    """

    picture: tuple[int, int]
    box: tuple[float, float, float, float]
    window: tuple[int, int]

    def to_input(self, x: float, y: float) -> tuple[float, float]:
        """Maps a point of the picture to pixels of the input; a cropped point lies outside the input."""
        left, top, right, bottom = self.box
        return (x - left) * self.window[1] / (right - left), (y - top) * self.window[0] / (bottom - top)

    def to_picture(self, x: float, y: float) -> tuple[float, float]:
        """Maps a point of the input to pixels of the picture; a point of the padding lies outside the picture."""
        left, top, right, bottom = self.box
        return left + x * (right - left) / self.window[1], top + y * (bottom - top) / self.window[0]

    @property
    def visible(self) -> tuple[int, int, int, int]:
        """The part of the picture that the model sees: left, top, right, bottom in whole pixels."""
        left, top, right, bottom = self.box
        width, height = self.picture
        return (max(round(left), 0), max(round(top), 0), min(round(right), width), min(round(bottom), height))

    @property
    def sees_all(self) -> bool:
        """True if no pixel of the picture is cropped."""
        return self.visible == (0, 0, *self.picture)

    def patch_means(self, mask: Float[Tensor, "height width"], grid: tuple[int, int]) -> Float[Tensor, "rows columns"]:
        """Averages a mask over each patch of the input; padding counts as 0.

        Args:
            mask: a value for each pixel of the picture.
            grid: rows and columns of patches. Patch embeddings are convolutions without padding: the remainder at the
                right and at the bottom of the input belongs to no patch.
        """
        down, across = (side // count for side, count in zip(self.window, grid, strict=True))
        columns = [self.to_picture(column * across, 0)[0] for column in range(grid[1] + 1)]
        rows = [self.to_picture(0, row * down)[1] for row in range(grid[0] + 1)]
        weights_x, weights_y = _covered(columns, self.picture[0]), _covered(rows, self.picture[1])
        return weights_y.float() @ mask.float() @ weights_x.T.float()


def _covered(edges: Sequence[float], pixels: int) -> Float[Tensor, "count pixels"]:
    """Share of each interval between edges that each pixel covers."""
    ends = torch.tensor(edges, dtype=torch.float64)
    start, stop = ends[:-1, None], ends[1:, None]
    left = torch.arange(pixels, dtype=torch.float64)
    shared = (torch.minimum(stop, left + 1) - torch.maximum(start, left)).clamp_min(0)
    return shared / (stop - start)


@dataclass(frozen=True)
class Geometry:
    """Geometry of preprocessing: pictures are resized, and a window of them becomes the input.

    Attributes:
        resize: `none`; `stretch` to `size`, ignoring the aspect ratio; or keep it and `cover` `size` (the shortest side
            fits) or lie within it (`contain`: the longest side fits). `unknown` if none of these.
        size: height and width after resizing, in pixels.
        window: height and width of the input, in pixels; smaller than the resized picture it crops, larger it pads.
        centred: whether the window is around the centre; else it begins at the upper left corner.
        rounds_size: whether the resized longer side is rounded to the nearest pixel (timm) or down.
        rounds_shift: whether the centred window is shifted to the nearest pixel (torchvision) or down.
    """

    resize: Resize
    size: tuple[int, int]
    window: tuple[int, int]
    centred: bool = True
    rounds_size: bool = False
    rounds_shift: bool = False

    @property
    def crops(self) -> bool:
        """True if parts of some pictures are cut off."""
        within = self.resize in ("stretch", "contain")
        return not within or any(side < full for side, full in zip(self.window, self.size, strict=True))

    def resized(self, picture: tuple[int, int]) -> tuple[int, int]:
        """Width and height of a picture after resizing.

        Args:
            picture: its width and height.
        """
        height, width = self.size
        if self.resize == "none":
            return picture
        if self.resize == "stretch":
            return width, height
        ratios = picture[0] / width, picture[1] / height
        ratio = min(ratios) if self.resize == "cover" else max(ratios)
        if self.rounds_size:
            return round(picture[0] / ratio), round(picture[1] / ratio)
        fits = ratios.index(ratio)
        target, side = (width, height)[fits], picture[fits]
        return cast(tuple[int, int], tuple(target if x == side else int(target * x / side) for x in picture))

    def view(self, picture: tuple[int, int]) -> View:
        """Returns the position of a picture in the input.

        Args:
            picture: its width and height, in pixels.

        Raises:
            UsageError: if the geometry is unknown.
        """
        if self.resize == "unknown":
            raise UsageError(
                "how this encoder's preprocessing moves the pixels of a picture is not known; name a part of what it "
                "sees instead: left,top,right,bottom in pixels of the input, or patches=ROWS,COLUMNS."
            )
        resized, window = self.resized(picture), self.window[::-1]
        shift = [self._shift(full, side) for full, side in zip(resized, window, strict=True)]
        left, top = (shift[axis] * picture[axis] / resized[axis] for axis in (0, 1))
        right, bottom = ((shift[axis] + window[axis]) * picture[axis] / resized[axis] for axis in (0, 1))
        return View(picture, (left, top, right, bottom), self.window)

    def _shift(self, full: int, window: int) -> int:
        """Pixels of the resized picture before the window; negative where the window begins with padding."""
        if not self.centred:
            return 0
        if not self.rounds_shift:
            return (full - window) // 2
        return round((full - window) / 2) if full >= window else -((window - full) // 2)


def stretched(size: tuple[int, int]) -> Geometry:
    """Geometry that squashes pictures of any shape to one size, (height, width)."""
    return Geometry("stretch", size, size)


def covering(size: tuple[int, int]) -> Geometry:
    """Geometry that fits the shortest side and crops to the centre."""
    return Geometry("cover", size, size)


def unknown(size: tuple[int, int]) -> Geometry:
    """Geometry of preprocessing that follows no known rule."""
    return Geometry("unknown", size, size)


def geometry_from_json(values: Mapping[str, Any]) -> Geometry:
    """Restores a geometry from the JSON values of `dataclasses.asdict`."""
    fields: dict[str, Any] = {**values, **{name: tuple(values[name]) for name in ("size", "window")}}
    return Geometry(**fields)


def geometry_of(
    processor: Any, size: tuple[int, int], preprocess: Callable[[Sequence[Image.Image]], Tensor]
) -> Geometry:
    """Determines the geometry of a model's preprocessing, read from its processor and confirmed on marked pictures.

    Args:
        processor: an image processor of transformers, transforms of torchvision, or any function.
        size: height and width of the input.
        preprocess: applies the processor to pictures and returns (B,3,height,width).
    """
    if _is_bounded(processor):
        return unknown(size)
    read = read_geometry(processor, size)
    probes = list(_probes(preprocess, size))
    likely = [covering(size), stretched(size), replace(covering(size), resize="contain")]
    for candidate in [*([] if read is None else [read]), *likely]:
        if probes and all(_agrees(candidate, probe) for probe in probes):
            return candidate
    return read if read is not None and not probes else unknown(size)


def _is_bounded(processor: Any) -> bool:
    """True if the shortest side is fitted unless the longest becomes too long: marked pictures are not long enough."""
    sides = getattr(processor, "size", None) if getattr(processor, "do_resize", False) else None
    return sides is not None and all(_entry(sides, key) for key in ("shortest_edge", "longest_edge"))


def read_geometry(processor: Any, size: tuple[int, int]) -> Geometry | None:
    """Reads the geometry from a processor's own settings; None if they are not understood.

    Args:
        processor: as for `geometry_of`.
        size: height and width of the input, which is the window if nothing is cropped.
    """
    own = getattr(processor, "geometry", None)
    if isinstance(own, Geometry):
        return own
    if hasattr(processor, "do_resize"):
        return _of_transformers(processor, size)
    steps = getattr(processor, "transforms", None)
    return None if steps is None else _of_torchvision(steps, size)


def _of_transformers(processor: Any, size: tuple[int, int]) -> Geometry | None:
    resize: Resize = "none"
    target, centred, window = size, True, size
    if processor.do_resize:
        shortest, longest = (_entry(processor.size, key) for key in ("shortest_edge", "longest_edge"))
        height, width = (_entry(processor.size, key) for key in ("height", "width"))
        if shortest and not longest:
            resize, target = "cover", (shortest, shortest)
        elif height and width and not (shortest or longest):
            resize, target = "stretch", (height, width)
        else:
            return None
    if getattr(processor, "do_center_crop", False):
        window = _entry(processor.crop_size, "height"), _entry(processor.crop_size, "width")
    elif getattr(processor, "do_pad", False) and getattr(processor, "pad_size", None):
        centred, window = False, (_entry(processor.pad_size, "height"), _entry(processor.pad_size, "width"))
    return Geometry(resize, target, window, centred) if all(window) else None


def _entry(size: Any, name: str) -> int:
    value = size.get(name) if isinstance(size, Mapping) else getattr(size, name, None)
    return int(value or 0)


_STILL = frozenset(
    {
        "ToTensor",
        "MaybeToTensor",
        "PILToTensor",
        "MaybePILToTensor",
        "ToImage",
        "ToDtype",
        "ToPILImage",
        "ConvertImageDtype",
        "Normalize",
        "MaybeConvertMode",
        "RGB",
        "Grayscale",
        "ColorJitter",
    }
)
"""Steps that move no pixel; the effect of other steps is measured on marked pictures."""


def _of_torchvision(steps: Sequence[Any], size: tuple[int, int]) -> Geometry | None:
    geometry = Geometry("none", size, size, rounds_shift=True)
    cropped = False
    for step in steps:
        kind = type(step).__name__
        if kind == "Resize" and not cropped and geometry.resize == "none" and getattr(step, "max_size", None) is None:
            height, width = _sides(step.size)
            keeps = isinstance(step.size, int) or len(step.size) == 1
            geometry = replace(geometry, resize="cover" if keeps else "stretch", size=(height, width))
        elif kind == "ResizeKeepRatio" and not cropped and geometry.resize == "none" and step.longest in (0.0, 1.0):
            mode = "contain" if step.longest else "cover"
            geometry = replace(geometry, resize=mode, size=_sides(step.size), rounds_size=True)
        elif kind in ("CenterCrop", "CenterCropOrPad") and not cropped:
            geometry, cropped = replace(geometry, window=_sides(step.size)), True
        elif kind not in _STILL and kind not in ("function", "builtin_function_or_method"):
            return None
    return geometry


def _sides(size: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    return (int(size[0]), int(size[-1]))


@dataclass(frozen=True, eq=False)
class _Probe:
    """A marked picture, where red grows from left to right and green from top to bottom, after preprocessing.

    Attributes:
        picture: width and height of the picture.
        marks: the marks in each pixel of the input, as shares of the picture's sides, (2,height,width).
        padding: which pixels of the input show no part of the picture, (height,width).
    """

    picture: tuple[int, int]
    marks: Float[Tensor, "2 height width"]
    padding: Tensor


def _probes(preprocess: Callable[[Sequence[Image.Image]], Tensor], size: tuple[int, int]) -> Iterator[_Probe]:
    for picture in _PROBES:
        ramp = np.full((picture[1], picture[0], 3), 128, dtype=np.uint8)
        ramp[..., 0] = np.round(255 * (np.arange(picture[0]) + 0.5) / picture[0])[None, :]
        ramp[..., 1] = np.round(255 * (np.arange(picture[1]) + 0.5) / picture[1])[:, None]
        flat = [np.full_like(ramp, value) for value in (0, 255)]
        try:
            pixels = preprocess([Image.fromarray(array) for array in (ramp, *flat)]).detach().float().cpu()
        except Exception:
            continue  # a processor may accept only some shapes; the failure is reported when it is used
        if tuple(pixels.shape) != (3, 3, *size):
            continue
        marked, black, white = pixels[:, :2]
        contrast = white - black
        padding = (contrast.abs() < 1e-6).all(dim=0)
        if not bool(padding.all()):
            yield _Probe(picture, (marked - black) / torch.where(contrast.abs() < 1e-6, 1.0, contrast), padding)


def _agrees(geometry: Geometry, probe: _Probe) -> bool:
    """True if a geometry predicts the marks of a probe."""
    view = geometry.view(probe.picture)
    height, width = view.window
    if (height, width) != tuple(probe.padding.shape):
        return False
    at = [
        torch.tensor([view.to_picture(i + 0.5, i + 0.5)[axis] for i in range(side)]) / probe.picture[axis]
        for axis, side in ((0, width), (1, height))
    ]
    across, down = at[0].expand(height, width), at[1][:, None].expand(height, width)
    # Filters blur the edges of a picture, so pixels near them are ignored.
    near = [2 * max(1 / probe.picture[axis], float(at[axis].diff().abs().max())) for axis in (0, 1)]
    inside = (across > near[0]) & (across < 1 - near[0]) & (down > near[1]) & (down < 1 - near[1])
    outside = (across < -near[0]) | (across > 1 + near[0]) | (down < -near[1]) | (down > 1 + near[1])
    if not bool(inside.any()) or bool((probe.padding & inside).any()) or not bool(probe.padding[outside].all()):
        return False
    return bool((probe.marks - torch.stack([across, down]))[:, inside].abs().max() <= _TOLERANCE)
