"""The transform between picture, input and patches, compared with marked pictures through every kind of processor."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from json import dumps, loads
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from steerlens import load_encoder
from steerlens.encoders.base import EncoderSpec
from steerlens.encoders.dinov3_processor import DINOv3Processor
from steerlens.encoders.geometry import Geometry, geometry_from_json, geometry_of
from steerlens.encoders.transforms import apply_transform
from steerlens.errors import UsageError
from steerlens.lenses.regions import Mask
from steerlens.testing.optional import add_optional_libraries
from steerlens.testing.tiny import tiny_encoder
from steerlens.testing.tiny_families import MODELS, tiny_family_encoder

SIZE, PATCH = (64, 64), 8
HALF: dict[str, Any] = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SQUARE = {"height": 64, "width": 64}


def timm_transform(size: tuple[int, int] = SIZE, **options: Any) -> Any:
    add_optional_libraries()
    timm = pytest.importorskip("timm", reason="needs the extra steerlens[timm]")
    return timm.data.create_transform(input_size=(3, *size), interpolation="bicubic", **options)


def open_clip_transform(**options: Any) -> Any:
    add_optional_libraries()
    library = pytest.importorskip("open_clip", reason="needs the extra steerlens[open-clip]")
    cfg = library.transform.PreprocessCfg(**{"size": 64, **options})
    return library.transform.image_transform_v2(cfg, is_train=False)


def torchvision_transform() -> Any:
    add_optional_libraries()
    steps = pytest.importorskip("torchvision", reason="needs torchvision").transforms
    return steps.Compose([steps.Resize((72, 72)), steps.CenterCrop(64), steps.ToTensor()])


def halves(picture: Image.Image) -> Tensor:
    """A function of the user's own: squashes."""
    pixels = np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR), dtype=np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)


def turned(picture: Image.Image) -> Tensor:
    return halves(picture.transpose(Image.Transpose.ROTATE_90))


class CropsAgain(transformers.ViTImageProcessorPil):
    """Says that it squashes, and resizes otherwise."""

    def resize(self, image: Any, size: Any, **options: Any) -> Any:
        image = super().resize(image, type(size)(shortest_edge=64), **options)
        return self.center_crop(image, size)


PROCESSORS: dict[str, tuple[Callable[[], Any], tuple[int, int], str]] = {
    "resize 72, crop 64": (
        lambda: transformers.BitImageProcessorPil(size={"shortest_edge": 72}, crop_size=SQUARE, **HALF),
        SIZE,
        "cover",
    ),
    "squash": (lambda: transformers.ViTImageProcessorPil(size=SQUARE, **HALF), SIZE, "stretch"),
    "squash 72, crop 64": (
        lambda: transformers.DeiTImageProcessorPil(size={"height": 72, "width": 72}, crop_size=SQUARE, **HALF),
        SIZE,
        "stretch",
    ),
    "no crop": (
        lambda: transformers.BitImageProcessorPil(size={"shortest_edge": 64}, do_center_crop=False, **HALF),
        SIZE,
        "cover",
    ),
    "not square": (
        lambda: transformers.CLIPImageProcessorPil(size={"height": 48, "width": 80}, do_center_crop=False, **HALF),
        (48, 80),
        "stretch",
    ),
    "crop larger than the picture": (
        lambda: transformers.CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size=SQUARE, **HALF),
        SIZE,
        "cover",
    ),
    "convnext resizes in its own way": (
        lambda: transformers.ConvNextImageProcessorPil(size={"shortest_edge": 64}, **HALF),
        SIZE,
        "unknown",
    ),
    "a subclass does other than its config says": (lambda: CropsAgain(size=SQUARE, **HALF), SIZE, "cover"),
    "DINOv3": (lambda: DINOv3Processor(SIZE, (0.5,) * 3, (0.5,) * 3), SIZE, "stretch"),
    "timm, centre": (partial(timm_transform, crop_pct=0.875), SIZE, "cover"),
    "timm, squash": (partial(timm_transform, crop_pct=0.9, crop_mode="squash"), SIZE, "stretch"),
    "timm, border": (partial(timm_transform, crop_pct=1.0, crop_mode="border"), SIZE, "contain"),
    "timm, not square": (partial(timm_transform, (48, 80), crop_pct=0.9), (48, 80), "cover"),
    "open_clip, shortest": (open_clip_transform, SIZE, "cover"),
    "open_clip, longest": (partial(open_clip_transform, resize_mode="longest"), SIZE, "contain"),
    "open_clip, squash": (partial(open_clip_transform, resize_mode="squash"), SIZE, "stretch"),
    "torchvision": (torchvision_transform, SIZE, "stretch"),
    "a function": (lambda: halves, SIZE, "stretch"),
    "a function that turns": (lambda: turned, SIZE, "unknown"),
}
"""What makes each processor, the input's height and width, and how it resizes."""


def through(processor: Any, pictures: list[Image.Image], size: tuple[int, int]) -> Tensor:
    if isinstance(processor, DINOv3Processor):
        return processor(pictures)["pixel_values"]
    return apply_transform(processor, pictures, size)


def spec_with(geometry: Geometry | None, size: tuple[int, int]) -> EncoderSpec:
    grid = (size[0] // PATCH, size[1] // PATCH)
    return EncoderSpec("x", "x", 1, 1, 4, 4, size, 1 + grid[0] * grid[1], grid, 1, (0,), geometry=geometry)


@pytest.mark.parametrize("kind", PROCESSORS)
def test_a_mask_marks_the_patches_in_which_the_model_sees_the_mark(kind: str) -> None:
    make, size, resize = PROCESSORS[kind]
    processor = make()
    geometry = geometry_of(processor, size, lambda pictures: through(processor, list(pictures), size))
    assert geometry.resize == resize
    if resize == "unknown":
        with pytest.raises(UsageError, match="not known"):
            geometry.view((10, 10))
        return
    spec, grid = spec_with(geometry, size), (size[0] // PATCH, size[1] // PATCH)
    forms = [(300, 300)] if kind == "no crop" else [(300, 200), (200, 330), (300, 300), (50, 40)]
    told = 0
    for width, height in forms:
        for left, top in ((0, 0), (0.3, 0.55), (0.62, 0.2), (0.8, 0.8)):
            box = [round(left * width), round(top * height), round((left + 0.2) * width), round((top + 0.2) * height)]
            marks = Image.new("L", (width, height))
            marks.paste(255, tuple(box))
            black = Image.new("RGB", marks.size)
            lit, dark, white = through(
                processor, [marks.convert("RGB"), black, Image.new("RGB", marks.size, "white")], size
            )
            contrast = (white - dark).mean(0)
            share = ((lit - dark).mean(0) / contrast).nan_to_num(0)  # padding has no contrast
            seen = share.view(grid[0], PATCH, grid[1], PATCH).mean((1, 3))
            try:
                weights = Mask(marks, "mark").weights(spec)[1:].view(grid)
            except UsageError:
                weights = torch.zeros(grid)
            # Filters ring and blur at edges; a shift by half a patch would differ by half.
            assert (weights - seen).abs().max() < 0.2, (kind, (width, height), box)
            told += int(weights.max() > 0.5)
    assert told >= len(forms)


@pytest.mark.parametrize("kind", [kind for kind in PROCESSORS if PROCESSORS[kind][2] != "unknown"])
def test_resized_size_and_shift_are_the_processors_own(kind: str) -> None:
    """A picture of one white column: its brightest input column is where the geometry puts it, to the pixel."""
    make, size, _ = PROCESSORS[kind]
    processor = make()
    geometry = geometry_of(processor, size, lambda pictures: through(processor, list(pictures), size))
    for width, height in [(128, 128)] if kind == "no crop" else [(128, 97), (97, 128), (131, 64)]:
        for axis, side in ((0, width), (1, height)):
            array = np.zeros((height, width, 3), np.uint8)
            middle = side // 2
            array[(slice(None), slice(middle - 4, middle + 4)) if axis == 0 else slice(middle - 4, middle + 4)] = 255
            pair = through(processor, [Image.fromarray(array), Image.new("RGB", (width, height))], size)
            line = (pair[0] - pair[1]).sum(0).sum(axis).double()
            centre = float((line * (torch.arange(len(line)) + 0.5)).sum() / line.sum())
            predicted = geometry.view((width, height)).to_input(middle, middle)[axis]
            assert abs(predicted - centre) < 0.55, (kind, width, axis)


@given(
    st.sampled_from(["none", "stretch", "cover", "contain"]),
    st.tuples(st.integers(8, 300), st.integers(8, 300)),
    st.tuples(st.integers(8, 300), st.integers(8, 300)),
    st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    st.booleans(),
    st.booleans(),
)
def test_to_the_input_and_back_is_the_same_point(
    resize: Any, size: tuple[int, int], window: tuple[int, int], picture: tuple[int, int], centred: bool, rounds: bool
) -> None:
    geometry = Geometry(resize, size, window, centred, rounds, rounds)
    if min(geometry.resized(picture)) < 1:
        return
    view = geometry.view(picture)
    for x, y in ((0.0, 0.0), (picture[0] * 0.3, picture[1] * 0.7), (float(picture[0]), float(picture[1]))):
        assert view.to_picture(*view.to_input(x, y)) == pytest.approx((x, y), abs=1e-6 * max(picture))
    left, top, right, bottom = view.visible
    assert 0 <= left <= right <= picture[0] or resize == "none"
    assert 0 <= top <= bottom <= picture[1] or resize == "none"


def test_padding_counts_for_nothing_and_the_rest_of_a_grid_for_no_patch() -> None:
    view = Geometry("none", (8, 8), (8, 12)).view((8, 8))  # two columns of padding at each side
    means = view.patch_means(torch.ones(8, 8), (2, 3))
    assert torch.equal(means, torch.tensor([[0.5, 1.0, 0.5]] * 2))
    cut = Geometry("none", (10, 10), (10, 10)).view((10, 10))
    marked = torch.zeros(10, 10)
    marked[8:, 8:] = 1
    assert not cut.patch_means(marked, (2, 2))[:, :].gt(0.2).any()


def test_extreme_forms_have_a_view() -> None:
    view = Geometry("cover", (256, 256), (224, 224)).view((4000, 4))
    assert view.visible[1] == 0
    assert view.visible[2] - view.visible[0] <= 4
    assert not view.sees_all


def test_geometry_goes_through_json() -> None:
    geometry = Geometry("contain", (64, 48), (64, 64), centred=False, rounds_size=True)
    assert geometry_from_json(loads(dumps(asdict(geometry)))) == geometry


def test_a_spec_of_an_earlier_version_is_read_by_whether_it_crops() -> None:
    spec = spec_with(None, SIZE)
    assert spec.view((128, 64)).box == (32, 0, 96, 64)


@pytest.mark.parametrize("kind", MODELS)
def test_every_family_of_transformers_knows_its_geometry(kind: str) -> None:
    spec = tiny_family_encoder(kind).spec
    assert spec.geometry is not None and spec.geometry.resize != "unknown"
    assert spec.geometry.window == spec.image_size


def test_sides_that_are_bounded_from_both_ends_are_not_guessed_from_pictures_that_are_not_long() -> None:
    # Pictures up to twice as long as wide are covered, others are not.
    sides = {"size": {"shortest_edge": 16, "longest_edge": 32}, "crop_size": {"height": 16, "width": 16}}
    processor = transformers.CLIPImageProcessorPil(**sides, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    encoder = load_encoder(tiny_encoder().model, processor, name="mine")
    assert encoder.spec.geometry is not None and encoder.spec.geometry.resize == "unknown"
    with pytest.raises(UsageError, match="is not known; name a part of what it"):
        encoder.spec.view((300, 40))
