"""Scenes composed on the fly: one picture on a background, in a third of them a second, small one near a corner.

All random choices come from a CPU generator, so a scene is the same on every device; the pixels are composed in one
batch on the device from uint8 tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from steerlens.scenes.pictures import PictureSet


@dataclass(frozen=True)
class Background:
    """A named colour, RGB in [0,1]."""

    name: str
    rgb: tuple[float, float, float]


BACKGROUNDS = (
    Background("white", (1.0, 1.0, 1.0)),
    Background("black", (0.05, 0.05, 0.05)),
    Background("grey", (0.5, 0.5, 0.5)),
    Background("red", (0.85, 0.12, 0.12)),
    Background("orange", (1.0, 0.55, 0.1)),
    Background("yellow", (1.0, 0.92, 0.25)),
    Background("green", (0.2, 0.65, 0.25)),
    Background("teal", (0.1, 0.6, 0.6)),
    Background("blue", (0.15, 0.3, 0.85)),
    Background("purple", (0.5, 0.2, 0.7)),
    Background("pink", (1.0, 0.6, 0.75)),
    Background("brown", (0.45, 0.28, 0.14)),
)
WHITE_SHARE = 0.4
COLOUR_JITTER = 0.03


@dataclass(frozen=True)
class Scenes:
    """A batch of composed pictures and what they show.

    Attributes:
        pictures: float (B,3,64,64) in [0,1].
        main: int64 (B), concept of the main object.
        companion: int64 (B), concept of the small object, -1 for none.
        background: int64 (B), index into `BACKGROUNDS`.
        corner: int64 (B), the companion's corner: 0 top left, 1 top right, 2 bottom left, 3 bottom right.
        colour: float (B,3), the background's exact colour in [0,1].
    """

    pictures: Tensor
    main: Tensor
    companion: Tensor
    background: Tensor
    corner: Tensor
    colour: Tensor


@dataclass(frozen=True)
class Augment:
    """Augmentation of training scenes; all zero means plain scenes.

    Attributes:
        hue: largest hue rotation, in turns.
        colour: largest relative change of saturation, contrast and brightness.
        colour_share: share of objects whose colours change.
        blend: share of objects drawn as a mixture of two styles of the same concept.
        flip: share of mirrored objects.
        blur: share of blurred pictures.
        erase: share of pictures of which a rectangle is replaced by noise.
        grain: largest standard deviation of noise, fine and coarse, on half of the pictures each: decoding adds such
            noise, and embeddings should be invariant to it.
        small: share of main objects drawn anywhere, as small as companions or a little larger.
        companion_scale: largest scale of a companion, 0.5 in plain scenes; larger companions are easier to learn from.
        stretch: largest log ratio by which an object is made wider and flatter, or the reverse.
        warp: standard deviation of a smooth displacement of the drawing, in half picture widths.
        shade: largest relative change of brightness from one side of an object to the other: styles differ in shading.
    """

    hue: float = 0.0
    colour: float = 0.0
    colour_share: float = 0.0
    blend: float = 0.0
    flip: float = 0.0
    blur: float = 0.0
    erase: float = 0.0
    grain: float = 0.0
    small: float = 0.0
    companion_scale: float = 0.5
    stretch: float = 0.0
    warp: float = 0.0
    shade: float = 0.0


PLAIN = Augment()
STRONG = Augment(
    hue=0.08,
    colour=0.35,
    colour_share=0.6,
    blend=0.4,
    flip=0.5,
    blur=0.2,
    erase=0.25,
    grain=0.12,
    small=0.25,
    companion_scale=0.65,
    stretch=0.15,
    warp=0.05,
    shade=0.35,
)


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def place(
    sources: Tensor,
    scale: Tensor,
    angle: Tensor,
    shift: Tensor,
    mirror: Tensor,
    size: int,
    stretch: Tensor | None = None,
    warp: Tensor | None = None,
) -> Tensor:
    """Draws sources scaled, turned, moved and bent onto an empty canvas: premultiplied RGBA (B,4,size,size).

    Args:
        sources: float (B,4,h,w), premultiplied RGBA.
        scale: float (B), 1 fills the canvas.
        angle: float (B), radians.
        shift: float (B,2), of the centre in half canvas widths, x then y.
        mirror: float (B), -1 mirrors, 1 does not.
        size: side of the canvas in pixels.
        stretch: float (B), the source's width grows by this factor and its height shrinks by it.
        warp: float (B,2,k,k), displacement in half picture widths on a coarse grid of the canvas.
    """
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = torch.stack([torch.stack([cosine * mirror, sine * mirror], -1), torch.stack([-sine, cosine], -1)], 1)
    if stretch is not None:
        rows = rows * torch.stack([1 / stretch, stretch], dim=1)[..., None]
    offset = -(rows @ shift[..., None])
    grid = functional.affine_grid(torch.cat([rows, offset], -1), [sources.shape[0], 4, size, size], align_corners=False)
    if warp is not None:
        grid = grid + functional.interpolate(warp, size=(size, size), mode="bicubic").permute(0, 2, 3, 1)
    return functional.grid_sample(sources, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def colour_matrix(hue: Tensor, saturation: Tensor) -> Tensor:
    """Returns float (B,3,3), which rotates RGB about the grey axis by `hue` turns and scales the distance from it."""
    cosine, sine = torch.cos(2 * math.pi * hue), torch.sin(2 * math.pi * hue)
    grey = torch.full((3, 3), 1 / 3, dtype=hue.dtype, device=hue.device)
    root = 1 / math.sqrt(3)
    cross = root * torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=hue.dtype, device=hue.device)
    identity = torch.eye(3, dtype=hue.dtype, device=hue.device)
    chroma = cosine[:, None, None] * (identity - grey) + sine[:, None, None] * cross
    return grey + saturation[:, None, None] * chroma


class SceneMaker:
    """Draws scenes from some of the pictures of a set; the tensors stay on the device."""

    def __init__(
        self, pictures: PictureSet, rows: Tensor, device: torch.device | str, augment: Augment = PLAIN
    ) -> None:
        """Copies the drawable pictures to the device.

        Args:
            pictures: all pictures.
            rows: int64 (K), the pictures that may be drawn.
            device: device of the composition.
            augment: the augmentation.
        """
        self.augment = augment
        self.device = torch.device(device)
        self.size = int(pictures.pictures.shape[-1])
        self.rows = rows
        self.concept = pictures.concept
        self.bank = pictures.pictures.to(self.device)
        order = rows[torch.argsort(self.concept[rows], stable=True)]
        counts = torch.bincount(self.concept[order], minlength=len(pictures.concepts))
        self._order, self._counts, self._starts = order, counts, counts.cumsum(0) - counts

    def _siblings(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Draws a random picture of the same concept for each row (possibly itself)."""
        concept = self.concept[rows]
        pick = (torch.rand(rows.numel(), generator=generator) * self._counts[concept]).long()
        return self._order[self._starts[concept] + pick]

    def _sources(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Returns pictures in premultiplied RGBA, float (B,4,64,64), with colours and styles changed by `augment`."""
        augment, count = self.augment, rows.numel()
        rgba = self.bank[rows.to(self.device)].float() / 255
        pictures = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1)
        if augment.blend > 0:
            other = self.bank[self._siblings(rows, generator).to(self.device)].float() / 255
            other = torch.cat([other[:, :3] * other[:, 3:], other[:, 3:]], dim=1)
            weight = _uniform(count, 0.2, 0.8, generator) * (torch.rand(count, generator=generator) < augment.blend)
            pictures = torch.lerp(pictures, other, weight.to(self.device)[:, None, None, None])
        if augment.colour_share > 0:
            chosen = (torch.rand(count, generator=generator) < augment.colour_share).float()
            hue = chosen * _uniform(count, -augment.hue, augment.hue, generator)
            change = [1 + chosen * _uniform(count, -augment.colour, augment.colour, generator) for _ in range(3)]
            saturation, contrast, brightness = (value.to(self.device)[:, None, None, None] for value in change)
            colour, alpha = pictures[:, :3], pictures[:, 3:]
            matrix = colour_matrix(hue.to(self.device), saturation[:, 0, 0, 0])
            colour = torch.einsum("bij,bjhw->bihw", matrix, colour)
            colour = ((colour - 0.5 * alpha) * contrast + 0.5 * alpha) * brightness
            if augment.shade > 0:
                colour = colour * self._shading(chosen, generator)
            pictures = torch.cat([torch.minimum(colour.clamp_min(0), alpha), alpha], dim=1)
        return pictures

    def _shading(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Returns float (B,1,64,64): a brightness that changes linearly across the picture, from a random side."""
        count = chosen.numel()
        angle = _uniform(count, 0, 2 * math.pi, generator)
        depth = chosen * _uniform(count, 0, self.augment.shade, generator)
        axis = torch.linspace(-1, 1, self.size)
        slope = torch.cos(angle)[:, None, None] * axis + torch.sin(angle)[:, None, None] * axis[:, None]
        return (1 + depth[:, None, None] * slope)[:, None].to(self.device)

    def _bend(self, count: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draws arguments of `place` that stretch and bend objects; empty for plain scenes."""
        augment, bend = self.augment, dict[str, Tensor]()
        if augment.stretch > 0:
            bend["stretch"] = _uniform(count, -augment.stretch, augment.stretch, generator).exp().to(self.device)
        if augment.warp > 0:
            noise = augment.warp * torch.randn(count, 2, 5, 5, generator=generator)
            bend["warp"] = noise.to(self.device)
        return bend

    def _mirror(self, count: int, generator: torch.Generator) -> Tensor:
        mirrored = torch.rand(count, generator=generator) < self.augment.flip
        return torch.where(mirrored, -1.0, 1.0).to(self.device)

    def draw(
        self,
        count: int,
        generator: torch.Generator,
        *,
        rows: Tensor | None = None,
        companions: float = 1 / 3,
        turn_background: int = 0,
    ) -> Scenes:
        """Composes `count` scenes.

        Args:
            count: number of scenes.
            generator: on the CPU; the only source of randomness.
            rows: int64 (count), main pictures; drawn at random if absent.
            companions: share of scenes with a companion.
            turn_background: offset of the index of every background: the same scenes on other colours.
        """
        if rows is None:
            rows = self.rows[torch.randint(self.rows.numel(), (count,), generator=generator)]
        small_rows = self.rows[torch.randint(self.rows.numel(), (count,), generator=generator)]
        has = (torch.rand(count, generator=generator) < companions) & (self.concept[small_rows] != self.concept[rows])
        other = torch.randint(1, len(BACKGROUNDS), (count,), generator=generator)
        background = torch.where(torch.rand(count, generator=generator) < WHITE_SHARE, torch.zeros_like(other), other)
        background = (background + turn_background) % len(BACKGROUNDS)
        palette = torch.tensor([entry.rgb for entry in BACKGROUNDS])
        colour = palette[background] + COLOUR_JITTER * (2 * torch.rand(count, 3, generator=generator) - 1)
        colour = colour.clamp(0, 1).to(self.device)
        canvas = colour[:, :, None, None].expand(-1, -1, self.size, self.size)

        scale = _uniform(count, 0.7, 0.98, generator)
        if self.augment.small > 0:
            tiny = torch.rand(count, generator=generator) < self.augment.small
            scale = torch.where(tiny, _uniform(count, 0.35, 0.7, generator), scale)
        room = (1 - scale + 0.04)[:, None]
        shift = room * (2 * torch.rand(count, 2, generator=generator) - 1)
        angle = _uniform(count, -0.2, 0.2, generator)
        sources = self._sources(rows, generator)
        mirror = self._mirror(count, generator)
        layer = place(
            sources,
            scale.to(self.device),
            angle.to(self.device),
            shift.to(self.device),
            mirror,
            self.size,
            **self._bend(count, generator),
        )
        canvas = canvas * (1 - layer[:, 3:]) + layer[:, :3]

        corner = torch.randint(4, (count,), generator=generator)
        small_scale = _uniform(count, 0.35, self.augment.companion_scale, generator)
        direction = torch.stack([(corner % 2) * 2.0 - 1, (corner // 2) * 2.0 - 1], dim=-1)
        small_shift = direction * (1 - small_scale)[:, None] * _uniform(2 * count, 0.85, 1.0, generator).reshape(-1, 2)
        small_angle = _uniform(count, -0.2, 0.2, generator)
        chosen = torch.nonzero(has)[:, 0]
        if chosen.numel() > 0:
            small = functional.avg_pool2d(self._sources(small_rows[chosen], generator), 2)
            layer = place(
                small,
                small_scale[chosen].to(self.device),
                small_angle[chosen].to(self.device),
                small_shift[chosen].to(self.device),
                self._mirror(chosen.numel(), generator),
                self.size,
                **self._bend(chosen.numel(), generator),
            )
            where = chosen.to(self.device)
            canvas = canvas.index_copy(0, where, canvas[where] * (1 - layer[:, 3:]) + layer[:, :3])
        companion = torch.where(has, self.concept[small_rows], torch.full_like(small_rows, -1))
        return Scenes(
            canvas.clamp(0, 1),
            self.concept[rows].to(self.device),
            companion.to(self.device),
            background.to(self.device),
            corner.to(self.device),
            colour,
        )

    def spoil(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Blurs some pictures, erases a rectangle of some, and adds noise, as input of an encoder in training."""
        augment, count = self.augment, pictures.shape[0]
        if augment.blur > 0:
            blurred = torch.rand(count, generator=generator) < augment.blur
            weight = (blurred * _uniform(count, 0.3, 1.0, generator)).to(self.device)[:, None, None, None]
            padded = functional.pad(pictures, (1, 1, 1, 1), mode="replicate")
            soft = functional.avg_pool2d(padded, 3, stride=1)
            pictures = torch.lerp(pictures, soft, weight)
        if augment.erase > 0:
            erased = torch.rand(count, generator=generator) < augment.erase
            centre = torch.rand(count, 2, generator=generator) * self.size
            half = _uniform(2 * count, 0.08, 0.2, generator).reshape(-1, 2) * self.size * erased[:, None]
            noise = torch.rand(count, 3, 1, 1, generator=generator).to(self.device)
            axis = torch.arange(self.size) + 0.5
            inside = (axis[None, None] - centre[..., None]).abs() < half[..., None]
            mask = (inside[:, 0, None, None, :] & inside[:, 1, None, :, None]).to(self.device)
            pictures = torch.where(mask, noise, pictures)
        if augment.grain > 0:
            for side in (self.size, self.size // 4):
                level = _uniform(count, 0, augment.grain, generator) * (torch.rand(count, generator=generator) < 0.5)
                grain = level[:, None, None, None] * torch.randn(count, 3, side, side, generator=generator)
                if side < self.size:
                    grain = functional.interpolate(grain, size=(self.size, self.size), mode="bilinear")
                pictures = (pictures + grain.to(self.device)).clamp(0, 1)
        return pictures


def zero_shot_scenes(maker: SceneMaker, rows: Tensor) -> Tensor:
    """Returns float (K,3,64,64): pictures upright and centred at scale 0.9 on white, like those of users."""
    rgba = maker.bank[rows.to(maker.device)].float() / 255
    sources = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1)
    count = rows.numel()
    ones = torch.ones(count, device=maker.device)
    layer = place(sources, 0.9 * ones, 0 * ones, torch.zeros(count, 2, device=maker.device), ones, maker.size)
    return (1 - layer[:, 3:]) + layer[:, :3]
