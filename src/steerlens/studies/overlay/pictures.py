"""Pictures with an overlay: a small picture pasted onto a base.

An overlay has an exact counterfactual: the same base without it.
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
"""Number of reference pictures below which studied bases are added to them."""


@dataclass(frozen=True)
class Placement:
    """Place, size and opacity of an overlay.

    Attributes:
        x: centre, as a share of the base's width, in [0,1].
        y: centre, as a share of the base's height, in [0,1].
        size: the overlay's larger side as a share of the base's smaller side, in (0,1].
        opacity: in (0,1].
    """

    x: float
    y: float
    size: float
    opacity: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.x <= 1 and 0 <= self.y <= 1 and 0 < self.size <= 1 and 0 < self.opacity <= 1):
            raise UsageError(f"an overlay must lie inside of its base, be no larger, and be visible: {self} is not.")


@dataclass(frozen=True)
class Placing:
    """Ranges from which the placement of each pair's overlay is drawn.

    Attributes:
        centre: x and y, as shares of the base's width and height; None for a place near a random corner.
        size: least and largest size, equal for a fixed size; see `Placement`.
        opacity: least and largest opacity, equal for a fixed opacity.
    """

    centre: tuple[float, float] | None = None
    size: tuple[float, float] = (0.35, 0.5)
    opacity: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        for name, (least, largest) in (("size", self.size), ("opacity", self.opacity)):
            if least > largest:
                raise UsageError(
                    f"the {name} of overlays lies between {least:g} and {largest:g}: give the least first."
                )
        for size, opacity in zip(self.size, self.opacity, strict=True):
            Placement(*(self.centre or (0.5, 0.5)), size, opacity)

    def draw(self, chance: random.Random) -> Placement:
        """Draws a placement; every draw takes the same number of random numbers, whatever the options."""
        side, left, top = chance.uniform(*self.size), chance.random() < 0.5, chance.random() < 0.5
        opacity = chance.uniform(*self.opacity)
        x, y = self.centre or (side / 2 if left else 1 - side / 2, side / 2 if top else 1 - side / 2)
        return Placement(x, y, side, opacity)


@dataclass(frozen=True, eq=False)
class Overlaid:
    """A base, an overlay, and both together.

    Attributes:
        id: name of the pair.
        base: the picture without the overlay, RGB.
        overlay: the overlay alone.
        both: the overlay pasted onto the base.
        base_concept: concept of the base.
        overlay_concept: concept of the overlay.
        placement: place, size and opacity of the overlay.
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
    """Pairs of a study; those of the selection share no concept with those to report on.

    Attributes:
        selection: pairs to select settings on.
        reported: pairs to report on.
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
        """JSON values that identify the set."""

        def named(pairs: Sequence[Overlaid]) -> dict[str, str]:
            return {pair.id: f"{image_hash(pair.base)} {image_hash(pair.both)}" for pair in pairs}

        return set_identity(self.source, named(self.selection), named(self.reported), self.reference)


def n_groups(pairs: Sequence[tuple[str, str]]) -> int:
    """Number of groups of pairs of concepts that share no concept with pairs of other groups.

    Pairs of a group are no independent samples, since they show the same pictures, also by way of a third pair.
    """
    groups: list[set[str]] = []
    for pair in pairs:
        joined = set(pair).union(*(group for group in groups if group & set(pair)))
        groups = [*(group for group in groups if not group & set(pair)), joined]
    return len(groups)


def paste(
    base: Image.Image, overlay: Image.Image, placement: Placement, mask: Image.Image | None = None
) -> Image.Image:
    """Pastes the overlay onto the base, wholly inside of it; transparent parts stay transparent.

    Args:
        base: any picture; it is not changed.
        overlay: RGB or RGBA.
        placement: place, size and opacity.
        mask: greyscale picture of the overlay's size, white where it is opaque; by default the overlay's transparency.

    Raises:
        UsageError: if the sizes of mask and overlay differ.
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
    """Crops a picture to its central square, which encoders see whether they crop or not."""
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
    """Builds pairs from two folders of photographs; every base is used once, overlays repeatedly if they are fewer.

    Photographs are cropped to their central square. The concept of a picture is the name of its subfolder or file.

    Args:
        bases: folder of base pictures.
        overlays: folder of overlays, preferably PNGs with transparency.
        n_selection: number of pairs to select settings on.
        n_reported: number of pairs to report on; their bases and overlays share no concept with the selection.
        seed: seed of the pairs and of the placements.
        placing: place, size and opacity of overlays; see `Placing` for the defaults.
        n_reference: number of bases whose mean embedding is subtracted; studied bases serve only if too few others are
            left.

    Raises:
        UsageError: if a folder does not exist or holds too few pictures.
        PictureError: if a picture cannot be read.
    """
    lower, upper = (_by_concept(folder) for folder in (bases, overlays))
    draw = random.Random(seed)
    names = sorted(upper)
    draw.shuffle(names)
    if len(names) < 2:
        raise UsageError(
            f"{overlays} holds overlays of fewer than two concepts, but settings are chosen and reported on different "
            "concepts; add overlays."
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
                paths, _overlays_for([concept_of(path, bases) for path in paths], upper, over_names), strict=True
            )
        )
        for paths, over_names in ((selection_bases, names[:cut]), (reported_bases, names[cut:]))
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
    """Draws pictures of the first group, then of the other groups only up to `LEAST`."""
    picked: list[Path] = []
    for place, group in enumerate(groups):
        wanted = (count if place == 0 else min(LEAST, count)) - len(picked)
        picked += draw.sample(group, max(0, min(wanted, len(group))))
    return picked


def _reference_note(studied: int, count: int, bases: Path) -> str:
    if not studied:
        return ""
    return (
        f"{studied} of the {count} reference pictures, whose mean is subtracted, are studied bases, since {bases.name} "
        f"holds too few others; give {LEAST} more than --choose and --count take."
    )


def _by_concept(folder: Path) -> dict[str, list[Path]]:
    by_concept: dict[str, list[Path]] = {}
    for path in picture_files(folder):
        by_concept.setdefault(concept_of(path, folder), []).append(path)
    return by_concept


def _in_turn(by_concept: Mapping[str, Sequence[Path]], names: Sequence[str], count: int) -> list[Path]:
    """Interleaves concepts: the first picture of each, then the second of each, and so on."""
    most = max((len(by_concept[name]) for name in names), default=0)
    turns = [by_concept[name][turn] for turn in range(most) for name in names if turn < len(by_concept[name])]
    return turns[:count]


def _overlays_for(
    concepts: Sequence[str], by_concept: Mapping[str, Sequence[Path]], names: Sequence[str]
) -> list[Path]:
    """Overlays for bases of these concepts, in turn; of another concept than the base if possible."""
    concept_by_path = {path: name for name in names for path in by_concept[name]}
    overlays = _in_turn(by_concept, names, len(concept_by_path))
    taken: list[Path] = []
    for place, concept in enumerate(concepts):
        rotated = overlays[place % len(overlays) :] + overlays[: place % len(overlays)]
        taken.append(next((path for path in rotated if concept_by_path[path] != concept), rotated[0]))
    return taken


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
