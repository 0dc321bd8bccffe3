"""Reference statistics of a pair from scenes of prepared pictures, and the rates at which pictures are warned of."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from steerlens.domain import UNUSUAL, DomainReference
from steerlens.images import eight_bit
from steerlens.progress import Progress
from steerlens.scenes import HELD_OUT, PLAIN, TRAIN, SceneMaker, load_prepared
from steerlens.zoo import Pair, measure_reference, seen_part

SEED, REPORTED_SEED = 9201, 9202
"""Seeds of the scenes of the reference, and of other scenes to report on."""


@dataclass(frozen=True)
class Warned:
    """Pictures of one kind, and how many of them are warned of.

    Attributes:
        kind: what the pictures are.
        count: their number.
        outside: number of those at or above the threshold.
    """

    kind: str
    count: int
    outside: int

    @property
    def share(self) -> float:
        """Share of the pictures that are warned of."""
        return self.outside / self.count


def scene_images(data: Path, split: int, count: int, seed: int) -> list[Image.Image]:
    """Composes scenes of the prepared pictures of one split.

    Args:
        data: folder with prepared pictures.
        split: `TRAIN` or `HELD_OUT`.
        count: number of scenes.
        seed: seed of the composition.
    """
    pictures = load_prepared(data)
    maker = SceneMaker(pictures, pictures.rows(split), torch.device("cpu"), PLAIN)
    scenes = maker.draw(count, torch.Generator().manual_seed(seed)).pictures
    return [Image.fromarray(array) for array in eight_bit(scenes)]


def measure_domain(pair: Pair, data: Path, count: int) -> Generator[Progress, None, DomainReference]:
    """Measures the reference statistics of a pair on scenes of the pictures it was trained on; yields progress."""
    images = scene_images(data, TRAIN, count, SEED)
    return (yield from measure_reference(pair, images, "scenes of the pictures it was trained on"))


def held_out_scenes(data: Path, count: int) -> list[Image.Image]:
    """Composes scenes of pictures that neither training nor the reference has seen."""
    return scene_images(data, HELD_OUT, count, REPORTED_SEED)


def count_warned(pair: Pair, reference: DomainReference, kind: str, images: Sequence[Image.Image]) -> Warned:
    """Counts the pictures that lie outside the domain, before anything is decoded."""
    outside = 0
    for start in range(0, len(images), 32):
        batch = images[start : start + 32]
        embeddings = pair.encoder.embed(pair.encoder.preprocess(batch)).float().cpu()
        views = [seen_part(image, pair.encoder.spec) for image in batch]
        outside += sum(
            reference.percentile(view, embedding) >= UNUSUAL for view, embedding in zip(views, embeddings, strict=True)
        )
    return Warned(kind, len(images), outside)
