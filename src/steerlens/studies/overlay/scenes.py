"""Ready-made overlays for a pair that `steerlens.training` made: held-out pictures pasted onto scenes of others."""

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
    n_chosen: int,
    n_reported: int,
    *,
    seed: int = 0,
    placing: Placing | None = None,
    n_reference: int = 64,
) -> OverlaySet:
    """Scenes of held-out pictures with another held-out picture near a corner.

    Args:
        data: folder of prepared pictures.
        n_chosen: pairs to choose on.
        n_reported: pairs to report on; a concept is the base of one pair and the overlay of another at most.
        seed: decides the pairs.
        placing: where overlays go, how large and how opaque; see `Placing` for what is drawn.
        n_reference: scenes of training pictures whose mean embedding is taken out.

    Raises:
        UsageError: if there are too few held-out pictures.
    """
    pictures = open_pictures(data)
    unseen = pictures.rows(UNSEEN)
    # An unseen concept has a picture in every style; the held-out style's is enough.
    rows = torch.cat([pictures.rows(HELD_OUT), unseen[pictures.style[unseen] == pictures.held_style]])
    generator, draw = torch.Generator().manual_seed(1_000_003 * seed + 29), random.Random(seed)
    rows = rows[torch.randperm(rows.numel(), generator=generator)]
    chosen, reported = rows[: 2 * n_chosen], rows[2 * n_chosen :]
    if chosen.numel() < 2 * n_chosen or reported.numel() < max(n_reported + 1, 3):
        raise UsageError(f"{rows.numel()} held-out pictures are too few for {n_chosen} and {n_reported} pairs.")
    sides: list[tuple[Overlaid, ...]] = []
    for some, count in ((chosen, n_chosen), (reported, n_reported)):
        # Every picture is a base once and an overlay once: the overlay is the next picture but half the list.
        lower, upper = some, some.roll(-(some.numel() // 2))
        bases = draw_scenes(pictures, lower[:count], generator)
        if len(bases) < count:
            raise UsageError(f"{some.numel()} held-out pictures are too few for {count} pairs.")
        made: list[Overlaid] = []
        for base, over, ground in zip(lower.tolist(), upper.tolist(), bases, strict=False):
            where = (placing or Placing()).draw(draw)
            layer = Image.fromarray(pictures.pictures[over].permute(1, 2, 0).contiguous().numpy())
            alone = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
            names = [pictures.concepts[int(pictures.concept[row])].name for row in (base, over)]
            made.append(
                Overlaid(f"{base}-{over}", ground, alone, paste(ground, layer, where), names[0], names[1], where)
            )
        sides.append(tuple(made[:count]))
    train = pictures.rows(TRAIN)
    picked = train[torch.randperm(train.numel(), generator=generator)[:n_reference]]
    reference = tuple(draw_scenes(pictures, picked, generator))
    return OverlaySet(sides[0], sides[1], reference, f"held-out scenes with overlays, seed {seed}")
