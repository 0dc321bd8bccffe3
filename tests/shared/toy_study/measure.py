"""Measurements of the brightness study: embeddings of every picture before and after."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from jaxtyping import Float
from PIL import ImageEnhance
from torch import Tensor

from steerlens.encoders.base import Encoder
from steerlens.progress import Progress
from steerlens.studies.shared.folder import StudyFolder
from steerlens.studies.shared.parts import Part, TensorName
from steerlens.studies.shared.subjects import Subject


@dataclass(frozen=True, eq=False)
class BrightnessPart(Part):
    """Embeddings of one picture, before and after."""

    WHAT: ClassVar[str] = "measurements of brightness"

    before: Annotated[Float[Tensor, "E"], TensorName("before")]
    after: Annotated[Float[Tensor, "E"], TensorName("after")]


def measure(encoder: Encoder, subjects: Sequence[Subject], factor: float, folder: StudyFolder) -> Iterator[Progress]:
    """Measures the pictures that the folder lacks."""
    for done, subject in enumerate(subjects):
        yield Progress("embedding", done, len(subjects), "pictures")
        if not folder.has(subject.id):
            changed = ImageEnhance.Brightness(subject.image).enhance(factor)
            before, after = encoder.embed(encoder.preprocess([subject.image, changed])).float()
            folder.keep(subject.id, BrightnessPart(before.clone(), after.clone()))
