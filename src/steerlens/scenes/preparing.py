"""Preparing pictures: reading, removing near-duplicates, and holding some out.

Splits are made over pictures: a tenth of one style is held out (its concepts are still seen in other styles), and some
concepts are never seen in any style. Concepts with a near-duplicate, by name or by picture, are never held out, so that
a held-out score measures generalisation and not the recall of a twin.

The split of the bundled pair's three styles does not depend on added sources. Added pictures that resemble a held-out
picture, or an unseen concept, are left out of training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from steerlens.errors import SteerlensError
from steerlens.scenes.pictures import HELD_OUT, OUTSIDE, TRAIN, UNSEEN, Concept, PictureSet, save_pictures
from steerlens.scenes.readers import Drawing, archive_of, read_folder, read_sources
from steerlens.scenes.sources import EMOJI, Source

TWIN_PICTURE = 0.06
"""Root mean square distance of 16 x 16 thumbnails under which two pictures are near-duplicates."""
TWIN_NAME = 0.85
"""Cosine of text embeddings above which two names are near-duplicates."""
REPEATED = 0.03
"""Distance of thumbnails under which an added picture repeats an earlier picture."""


@dataclass(frozen=True)
class StyleCount:
    """Counts of the pictures of one style.

    Attributes:
        style: its name.
        read: pictures read.
        repeated: near-duplicates of other pictures, removed.
        withheld: removed because they resemble a held-out picture or an unseen concept.
        concepts: distinct concepts of the pictures kept.
        splits: pictures kept by split: train, held out, unseen concept, outside.
    """

    style: str
    read: int
    repeated: int
    withheld: int
    concepts: int
    splits: tuple[int, int, int, int]


def _signature(pictures: Tensor) -> Tensor:
    """Returns float (N,1024): premultiplied RGBA thumbnails of 16 x 16, for finding near-duplicates."""
    parts: list[Tensor] = []
    for chunk in pictures.split(1024):
        rgba = chunk.float() / 255
        small = functional.adaptive_avg_pool2d(torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1), 16)
        parts.append(small.flatten(1))
    return torch.cat(parts)


def _distance(left: Tensor, right: Tensor) -> Tensor:
    """Returns float (N,M): root mean square distances of signatures."""
    return torch.cdist(left, right) / left.shape[1] ** 0.5


def near_duplicates(
    pictures: Tensor,
    concept: Tensor,
    style: Tensor,
    names: Tensor,
    *,
    picture: float = TWIN_PICTURE,
    name: float = TWIN_NAME,
) -> Tensor:
    """Returns bool (C): concepts that have a near-duplicate among the other concepts, by picture or by name.

    Args:
        pictures: uint8 (N,4,64,64).
        concept: int64 (N).
        style: int64 (N).
        names: float (C,E), unit-norm text embeddings of the names.
        picture: root mean square distance of 16 x 16 thumbnails under which two pictures are near-duplicates.
        name: cosine above which two names are.
    """
    similar = names @ names.T
    similar.fill_diagonal_(-1)
    twin = (similar > name).any(dim=1)
    features = _signature(pictures)
    for index in style.unique():
        rows = torch.nonzero(style == index)[:, 0]
        distance = _distance(features[rows], features[rows])
        distance[concept[rows][:, None] == concept[rows][None]] = 1
        twin[concept[rows[(distance < picture).any(dim=1)]]] = True
    return twin


def split_pictures(
    concept: Tensor, style: Tensor, twin: Tensor, *, held_style: int, held_share: float, unseen: int, seed: int
) -> Tensor:
    """Draws int64 (N): the split of every picture; see `PictureSet.split`.

    A held-out picture needs its concept in another style; with a single style, held-out pictures cannot exist.
    """
    generator = torch.Generator().manual_seed(seed)
    split = torch.full_like(concept, TRAIN)
    count = int(twin.numel())
    eligible = torch.nonzero(~twin)[:, 0]
    order = eligible[torch.randperm(eligible.numel(), generator=generator)]
    never = order[: min(unseen, max(count // 5, 1))]
    split[torch.isin(concept, never)] = UNSEEN
    styles_of = torch.zeros(count, dtype=torch.long).index_add_(0, concept, torch.ones_like(concept))
    free = (style == held_style) & (split == TRAIN) & ~twin[concept] & (styles_of[concept] > 1)
    candidates = torch.nonzero(free)[:, 0]
    wanted = round(held_share * int((style == held_style).sum()))
    split[candidates[torch.randperm(candidates.numel(), generator=generator)][:wanted]] = HELD_OUT
    return split


def extend_split(pictures: Tensor, concept: Tensor, names: Tensor, split: Tensor, outside: Tensor) -> Tensor:
    """Computes int64 (N): the split of added pictures; -1 removes repeated pictures, -2 those close to held-out ones.

    Args:
        pictures: uint8 (N,4,64,64); the first K are split already.
        concept: int64 (N).
        names: float (C,E), unit-norm text embeddings of the names.
        split: int64 (K), the split of the first pictures.
        outside: bool (N), pictures of sources that are never trained on.
    """
    known = len(split)
    features = _signature(pictures)
    whole = torch.cat([split, torch.full_like(concept[known:], TRAIN)])
    unseen = torch.zeros(len(names), dtype=torch.bool)
    unseen[concept[:known][split == UNSEEN]] = True
    if bool(unseen.any()):
        related = (names @ names[unseen].T > TWIN_NAME).any(dim=1) & ~unseen
        trained = torch.zeros_like(related)
        trained[concept[:known][split == TRAIN]] = True
        whole[known:][(related & ~trained)[concept[known:]]] = -2
    whole[known:][unseen[concept[known:]]] = UNSEEN
    secret = torch.nonzero((split == HELD_OUT) | (split == UNSEEN))[:, 0]
    for rows in torch.arange(known, len(concept)).split(1024):
        added = features[rows]
        if secret.numel() > 0:
            like = (_distance(added, features[secret]) < TWIN_PICTURE).any(dim=1)
            whole[rows[like & (whole[rows] == TRAIN)]] = -2
        near = _distance(added, features[: int(rows[-1]) + 1]) < REPEATED
        near &= torch.arange(int(rows[-1]) + 1)[None] < rows[:, None]  # the first of a group stays
        whole[rows[near.any(dim=1)]] = -1
    whole[outside & (whole != -1)] = OUTSIDE
    return whole


def _count(styles: Sequence[str], style: Tensor, concept: Tensor, split: Tensor) -> list[StyleCount]:
    counts: list[StyleCount] = []
    for index, name in enumerate(styles):
        here = style == index
        kept = here & (split >= 0)
        of_split = [int((here & (split == which)).sum()) for which in (TRAIN, HELD_OUT, UNSEEN, OUTSIDE)]
        counts.append(
            StyleCount(
                name,
                int(here.sum()),
                int((here & (split == -1)).sum()),
                int((here & (split == -2)).sum()),
                int(concept[kept].unique().numel()),
                (of_split[0], of_split[1], of_split[2], of_split[3]),
            )
        )
    return counts


def count_table(counts: Sequence[StyleCount]) -> str:
    """Formats a Markdown table of pictures and concepts by source."""
    heads = ("source", "read", "repeated", "withheld", "concepts", "train", "held out", "unseen", "outside")
    rows = [(c.style, c.read, c.repeated, c.withheld, c.concepts, *c.splits) for c in counts]
    cells = [heads, ("---",) * len(heads), *(tuple(map(str, row)) for row in rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def prepare(
    directory: Path,
    out: Path,
    embed_names: Callable[[list[str]], Tensor],
    *,
    pictures: Path | None = None,
    sources: Sequence[Source] = EMOJI,
    held_share: float = 0.1,
    unseen: int = 50,
    seed: int = 0,
) -> tuple[PictureSet, tuple[StyleCount, ...]]:
    """Reads, cleans, splits and saves pictures into `out`; returns them and the counts of each style.

    Args:
        directory: folder of the packages' archives.
        out: folder for `pictures.safetensors` and `pictures.json`.
        embed_names: text encoder, list of C names -> float (C,E) of unit norm.
        pictures: a folder of your own instead: `style/name.png`, or `name.png`.
        sources: packages to read.
        held_share: share of the held-out style's pictures to hold out.
        unseen: concepts to hold out in every style.
        seed: seed of the split.

    Raises:
        SteerlensError: no pictures were found, or an archive is missing.
    """
    # The bundled pair's styles come first, so that their rows, concepts and split do not depend on what is added.
    ordered = sorted(sources, key=lambda source: (source not in EMOJI, not source.trained))
    drawings = list(read_folder(pictures) if pictures is not None else read_sources(ordered, directory))
    drawings = [drawing for drawing in drawings if bool(drawing.picture[3].any())]  # some files are blank
    if len(drawings) < 2:
        raise SteerlensError(f"{pictures or directory} holds {len(drawings)} pictures: at least 2 are needed")
    styles = [source.style for source in ordered]
    if pictures is not None:
        styles = sorted({drawing.style for drawing in drawings})
    concepts = _concepts(drawings)
    index = {concept.name: number for number, concept in enumerate(concepts)}
    tensors = torch.stack([drawing.picture for drawing in drawings])
    concept = torch.tensor([index[drawing.concept.name] for drawing in drawings])
    style = torch.tensor([styles.index(drawing.style) for drawing in drawings])
    names = embed_names([concept.name for concept in concepts])

    core = _core_styles(ordered) if pictures is None else len(styles)
    outside = torch.zeros_like(concept, dtype=torch.bool)
    if pictures is None:
        outside = torch.tensor([not source.trained for source in ordered])[style]
    known = int((style < core).sum())
    labelled = int(concept[:known].max()) + 1  # concepts are numbered as they appear
    twin = near_duplicates(tensors[:known], concept[:known], style[:known], names[:labelled])
    split = split_pictures(
        concept[:known],
        style[:known],
        twin,
        held_style=core - 1,
        held_share=held_share,
        unseen=unseen,
        seed=seed,
    )
    if known < len(concept):
        split = extend_split(tensors, concept, names, split, outside)
    kept = split >= 0
    facts = [] if pictures is not None else [source.facts(archive_of(source, directory)) for source in ordered]
    result = PictureSet(
        tensors[kept],
        concept[kept],
        style[kept],
        split[kept],
        tuple(concepts),
        tuple(styles),
        tuple(facts),
        core - 1,
    )
    near = [concept.name for concept, twins in zip(concepts, twin.tolist(), strict=False) if twins]
    save_pictures(result, out, {"near_duplicates": near, "seed": seed})
    return result, tuple(_count(styles, style, concept, split))


def _concepts(drawings: Sequence[Drawing]) -> list[Concept]:
    """Lists distinct concepts by name, in order of appearance."""
    return list({drawing.concept.name: drawing.concept for drawing in drawings}.values())


def _core_styles(ordered: Sequence[Source]) -> int:
    """Counts the leading styles that the split is drawn from: the bundled pair's, or else all training styles."""
    core = sum(source in EMOJI for source in ordered)
    return core or sum(source.trained for source in ordered)
