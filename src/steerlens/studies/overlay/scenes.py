"""Scenes of held-out pictures with other held-out pictures as overlays, for models trained on prepared pictures."""

import random
from pathlib import Path

import torch
from PIL import Image

from steerlens.errors import UsageError
from steerlens.scenes import HELD_OUT, TRAIN, UNSEEN
from steerlens.studies.overlay.pictures import Overlaid, OverlaySet, Placing, paste
from steerlens.studies.shared.scenes import draw_scenes, open_pictures


def scene_pairs(
    data: Path,
    n_selection: int,
    n_reported: int,
    *,
    seed: int = 0,
    placing: Placing | None = None,
    n_reference: int = 64,
) -> OverlaySet:
    """Draws scenes of held-out pictures with another held-out picture as overlay.

    Args:
        data: folder of prepared pictures.
        n_selection: number of pairs to select settings on.
        n_reported: number of pairs to report on; a concept is the base of at most one pair and the overlay of at most
            one.
        seed: seed of the pairs.
        placing: place, size and opacity of overlays; see `Placing` for the defaults.
        n_reference: number of scenes of training pictures whose mean embedding is subtracted.

    Raises:
        UsageError: if there are too few held-out pictures.
    """
    pictures = open_pictures(data)
    unseen = pictures.rows(UNSEEN)
    # An unseen concept has a picture in every style; that of the held-out style is enough.
    rows = torch.cat([pictures.rows(HELD_OUT), unseen[pictures.style[unseen] == pictures.held_style]])
    generator, draw = torch.Generator().manual_seed(1_000_003 * seed + 29), random.Random(seed)
    rows = rows[torch.randperm(rows.numel(), generator=generator)]
    selection, reported = rows[: 2 * n_selection], rows[2 * n_selection :]
    if selection.numel() < 2 * n_selection or reported.numel() < max(n_reported + 1, 3):
        raise UsageError(f"{rows.numel()} held-out pictures are too few for {n_selection} and {n_reported} pairs.")
    sides: list[tuple[Overlaid, ...]] = []
    for lower, count in ((selection, n_selection), (reported, n_reported)):
        # Every picture is a base once and an overlay once: base and overlay lie half the list apart.
        upper = lower.roll(-(lower.numel() // 2))
        bases = draw_scenes(pictures, lower[:count], generator)
        if len(bases) < count:
            raise UsageError(f"{lower.numel()} held-out pictures are too few for {count} pairs.")
        pairs: list[Overlaid] = []
        for base, over, ground in zip(lower.tolist(), upper.tolist(), bases, strict=False):
            where = (placing or Placing()).draw(draw)
            layer = Image.fromarray(pictures.pictures[over].permute(1, 2, 0).contiguous().numpy())
            alone = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
            names = [pictures.concepts[int(pictures.concept[row])].name for row in (base, over)]
            pairs.append(
                Overlaid(f"{base}-{over}", ground, alone, paste(ground, layer, where), names[0], names[1], where)
            )
        sides.append(tuple(pairs[:count]))
    train = pictures.rows(TRAIN)
    picked = train[torch.randperm(train.numel(), generator=generator)[:n_reference]]
    reference = tuple(draw_scenes(pictures, picked, generator))
    return OverlaySet(sides[0], sides[1], reference, f"held-out scenes with overlays, seed {seed}")
