"""Pictures with an overlay: a small picture pasted onto a base; base, overlay and both are kept.

The counterfactual of an overlay is exact: the same base without it.
"""

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from steerlens.errors import UsageError
from steerlens.images import load_picture, load_with_alpha, picture_files
from steerlens.studies.shared.subjects import concept_of, image_hash, set_identity

LEAST = 16
"""Least number of reference pictures for a mean, where there are so many."""


@dataclass(frozen=True)
class Placement:
    """Where an overlay goes.

    Attributes:
        x: centre, as a share of the base's width, in [0,1].
        y: centre, as a share of its height.
        size: the overlay's larger side as a share of the base's smaller one.
        opacity: in (0,1].
    """

    x: float
    y: float
    size: float
    opacity: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.x <= 1 and 0 <= self.y <= 1 and 0 < self.size <= 1 and 0 < self.opacity <= 1):
            raise UsageError(f"an overlay lies inside of its base, is no larger, and is seen: {self} is not so.")


@dataclass(frozen=True)
class Placing:
    """Placement of overlays: given values hold for all pairs, the others are drawn for each pair.

    Attributes:
        centre: x and y, as shares of the base's width and height; None for near a random corner.
        size: the least and the largest, equal if it is given; see `Placement`.
        opacity: the least and the largest, equal if it is given.
    """

    centre: tuple[float, float] | None = None
    size: tuple[float, float] = (0.35, 0.5)
    opacity: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        for name, (least, largest) in (("size", self.size), ("opacity", self.opacity)):
            if least > largest:
                raise UsageError(f"the {name} of overlays lies between {least:g} and {largest:g}, which is nowhere.")
        for size, opacity in zip(self.size, self.opacity, strict=True):
            Placement(*(self.centre or (0.5, 0.5)), size, opacity)

    def draw(self, chance: random.Random) -> Placement:
        """Draws a placement; every draw takes as many random numbers, so that options do not change each other's."""
        side, left, top = chance.uniform(*self.size), chance.random() < 0.5, chance.random() < 0.5
        opacity = chance.uniform(*self.opacity)
        x, y = self.centre or (side / 2 if left else 1 - side / 2, side / 2 if top else 1 - side / 2)
        return Placement(x, y, side, opacity)


@dataclass(frozen=True, eq=False)
class Overlaid:
    """A base, an overlay, and both together.

    Attributes:
        id: names the pair.
        base: the picture without the overlay, RGB.
        overlay: the overlay alone.
        both: the overlay pasted onto the base.
        base_concept: what the base shows.
        overlay_concept: what the overlay shows.
        placement: where it was pasted.
    """

    id: str
    base: Image.Image
    overlay: Image.Image
    both: Image.Image
    base_concept: str
    overlay_concept: str
    placement: Placement


@dataclass(frozen=True, eq=False)
class OverlaySet:
    """The pairs of a study; those for selection share no concept with those to report on.

    Attributes:
        selection: settings are selected on these.
        reported: results are reported on these.
        reference: pictures whose mean embedding is subtracted.
        source: origin of the pictures, in words.
        note: a warning about the pictures; usually empty.
    """

    selection: tuple[Overlaid, ...]
    reported: tuple[Overlaid, ...]
    reference: tuple[Image.Image, ...]
    source: str
    note: str = ""

    def identity(self) -> dict[str, Any]:
        """JSON values that tell this set from another one."""

        def named(pairs: Sequence[Overlaid]) -> dict[str, str]:
            return {pair.id: f"{image_hash(pair.base)} {image_hash(pair.both)}" for pair in pairs}

        return set_identity(self.source, named(self.selection), named(self.reported), self.reference)


def paste(
    base: Image.Image, overlay: Image.Image, placement: Placement, mask: Image.Image | None = None
) -> Image.Image:
    """Pastes the overlay onto the base, wholly inside of it; transparent parts stay transparent.

    Args:
        base: any picture; it is not changed.
        overlay: RGB or RGBA.
        placement: where, how large, how opaque.
        mask: greyscale of the overlay's size, white where it is opaque; by default its own transparency.

    Raises:
        UsageError: if the mask has another size than the overlay.
    """
    layer = overlay.convert("RGBA")
    if mask is not None:
        if mask.size != overlay.size:
            raise UsageError(f"a mask of {mask.size} pixels does not fit an overlay of {overlay.size}.")
        layer.putalpha(mask.convert("L"))
    scale = placement.size * min(base.size) / max(layer.size)
    size = tuple(max(1, round(side * scale)) for side in layer.size)
    layer = layer.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    if placement.opacity < 1:
        layer.putalpha(layer.getchannel("A").point([round(value * placement.opacity) for value in range(256)]))
    corner = [
        min(max(round(centre * whole - side / 2), 0), whole - side)
        for centre, whole, side in zip((placement.x, placement.y), base.size, size, strict=True)
    ]
    canvas = base.convert("RGBA")
    canvas.alpha_composite(layer, (corner[0], corner[1]))
    return canvas.convert("RGB")


def square(image: Image.Image) -> Image.Image:
    """The central square of a picture, which every encoder sees, whether it crops or not."""
    side = min(image.size)
    left, top = ((whole - side) // 2 for whole in image.size)
    return image.crop((left, top, left + side, top + side))


def folder_pairs(
    bases: Path,
    overlays: Path,
    n_selection: int,
    n_reported: int,
    *,
    seed: int = 0,
    placing: Placing | None = None,
    n_reference: int = 64,
) -> OverlaySet:
    """Pairs from two folders of photographs; every base is used once, overlays again where they are fewer.

    Photographs are cut to their central square. What a picture shows is the name of its subfolder or file.

    Args:
        bases: folder of base pictures.
        overlays: folder of overlays; PNGs with transparency serve best.
        n_selection: pairs to select settings on.
        n_reported: pairs to report on; neither their bases nor their overlays show concepts of the selection.
        seed: decides which overlay goes onto which base, and where.
        placing: place, size and opacity of overlays; see `Placing` for the defaults.
        n_reference: bases whose mean embedding is subtracted, taken from those that are not studied while there are
            enough.

    Raises:
        UsageError: if a folder is not there or holds too few pictures.
        PictureError: if one of them cannot be read.
    """
    lower, upper = (_by_concept(folder) for folder in (bases, overlays))
    draw = random.Random(seed)
    names = sorted(upper)
    draw.shuffle(names)
    if len(names) < 2:
        raise UsageError(
            f"{overlays} holds overlays of fewer than two concepts: settings are chosen on one, reported on another."
        )
    cut = min(max(1, round(len(names) * n_selection / (n_selection + n_reported))), len(names) - 1)
    grounds = sorted(lower)
    draw.shuffle(grounds)
    barred = set(names[cut:])
    selection_bases = _in_turn(lower, [name for name in grounds if name not in barred], n_selection)
    barred = {*names[:cut], *(concept_of(path, bases) for path in selection_bases)}
    reported_bases = _in_turn(lower, [name for name in grounds if name not in barred], n_reported)
    if len(selection_bases) < n_selection or len(reported_bases) < n_reported:
        raise UsageError(
            f"{bases} holds {sum(map(len, lower.values()))} pictures of {len(lower)} concepts, too few to choose on "
            f"{n_selection} and report on {n_reported} of other concepts; give more, or lower --choose and --count."
        )
    sides = [
        tuple(
            _pair(base, bases, over, overlays, (placing or Placing()).draw(draw))
            for base, over in zip(
                some, _meeting(upper, over_names, [concept_of(path, bases) for path in some]), strict=True
            )
        )
        for some, over_names in ((selection_bases, names[:cut]), (reported_bases, names[cut:]))
    ]
    studied = {*selection_bases, *reported_bases}
    spare = [path for group in lower.values() for path in group if path not in studied]
    picked = _references((spare, selection_bases, reported_bases), n_reference, draw)
    return OverlaySet(
        sides[0],
        sides[1],
        tuple(square(load_picture(path).image) for path in picked),
        f"{overlays.name} on {bases.name}, seed {seed}",
        _reference_note(len(studied.intersection(picked)), len(picked), bases),
    )


def _references(groups: Sequence[Sequence[Path]], count: int, draw: random.Random) -> list[Path]:
    """Pictures of the first group; then of the others, in order, only until there are `LEAST`."""
    picked: list[Path] = []
    for place, group in enumerate(groups):
        wanted = (count if place == 0 else min(LEAST, count)) - len(picked)
        picked += draw.sample(group, max(0, min(wanted, len(group))))
    return picked


def _reference_note(studied: int, count: int, bases: Path) -> str:
    if not studied:
        return ""
    return (
        f"{studied} of the {count} reference pictures, whose mean is taken out, are bases that are studied themselves: "
        f"{bases.name} holds too few others; give {LEAST} more than --choose and --count take."
    )


def _by_concept(folder: Path) -> dict[str, list[Path]]:
    by_concept: dict[str, list[Path]] = {}
    for path in picture_files(folder):
        by_concept.setdefault(concept_of(path, folder), []).append(path)
    return by_concept


def _in_turn(by_concept: Mapping[str, Sequence[Path]], names: Sequence[str], count: int) -> list[Path]:
    """The first picture of every concept, then the second of every concept, and so on."""
    most = max((len(by_concept[name]) for name in names), default=0)
    turns = [by_concept[name][turn] for turn in range(most) for name in names if turn < len(by_concept[name])]
    return turns[:count]


def _meeting(by_concept: Mapping[str, Sequence[Path]], names: Sequence[str], concepts: Sequence[str]) -> list[Path]:
    """An overlay for each base, concepts in turn; of another concept than the base where there is one."""
    shown = {path: name for name in names for path in by_concept[name]}
    every = _in_turn(by_concept, names, len(shown))
    met: list[Path] = []
    for place, concept in enumerate(concepts):
        turned = every[place % len(every) :] + every[: place % len(every)]
        met.append(next((path for path in turned if shown[path] != concept), turned[0]))
    return met


def _pair(base: Path, bases: Path, over: Path, overlays: Path, placement: Placement) -> Overlaid:
    ground, layer = square(load_picture(base).image), load_with_alpha(over)
    if layer.mode == "RGBA":
        side = max(layer.size)
        alone = Image.new("RGBA", (side, side), "white")
        alone.alpha_composite(layer, ((side - layer.width) // 2, (side - layer.height) // 2))
        alone = alone.convert("RGB")
    else:
        alone = layer = square(layer)
    both = paste(ground, layer, placement)
    name = hashlib.sha256(f"{base.relative_to(bases)}|{over.relative_to(overlays)}".encode()).hexdigest()[:8]
    concepts = concept_of(base, bases), concept_of(over, overlays)
    return Overlaid(f"{_plain(base)}-{_plain(over)}-{name}", ground, alone, both, *concepts, placement)


def _plain(path: Path) -> str:
    return re.sub(r"[^\w.-]+", "_", path.stem)[:20]
