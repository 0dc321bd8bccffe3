"""What the studies' commands share: which model, which pictures, and showing progress."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from steerlens.encoders.base import Encoder
    from steerlens.studies.shared.subjects import SubjectSet
    from steerlens.zoo.pair import Pair

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class StudySettings:
    """What every study takes."""

    model: str = "emoji"
    """Which pair of encoder and decoder: emoji (bundled), kandinsky-2.2 (the paper's), bridge:FOLDER,
    or a folder that holds one."""

    encoder: str | None = None
    """Another encoder: a hub id or a folder."""

    local: Path | None = None
    """A folder that holds the model's files in the hub's layout, in place of a download."""

    images: Path | None = None
    """A folder of pictures: concept/picture.jpg, or concept 1.jpg, concept 2.jpg."""

    data: Path | None = None
    """For the bundled pair: a data folder with prepared pictures (steerlens train prepare), of which the held-out ones
    are shown in scenes."""

    seed: int = 0
    """Decides which pictures, and the first seed of the decoder."""

    steps: int | None = None
    """Denoising steps. Default: what suits the model."""

    guidance: float | None = None
    """Guidance scale. Default: what suits the model."""

    device: str | None = None
    """cpu, cuda or mps. Default: the fastest there is."""

    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Precision of the decoder. Default: what suits the device."""

    json: bool = False
    """Print the summary as JSON, and nothing else."""


def load_study_pair(settings: StudySettings) -> "Pair":
    """The pair that the settings name.

    Raises:
        UsageError: if its decoder reads image tokens, which no study makes.
    """
    from steerlens.loading import load
    from steerlens.studies.importance.measure import require_embeddings

    pair = load(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        local=settings.local,
        encoder=settings.encoder,
    )
    require_embeddings(pair)
    return pair


def load_judge(judge: str | None, settings: StudySettings) -> "Encoder | None":
    """The outside judge that was named, if any."""
    if judge is None:
        return None
    from steerlens.loading import load_encoder

    return load_encoder(judge, device=settings.device)


def load_subjects(settings: StudySettings, n_chosen: int, n_reported: int, *, n_reference: int = 64) -> "SubjectSet":
    """The pictures that the settings name.

    Raises:
        UsageError: if both a folder and a data folder are given, or neither, or they hold too few pictures.
    """
    from steerlens.errors import UsageError
    from steerlens.studies.shared.scenes import require_scenes, scene_subjects
    from steerlens.studies.shared.subjects import folder_subjects

    if settings.images is not None and settings.data is not None:
        raise UsageError("give either --images or --data, not both.")
    if n_chosen < 2 or n_reported < 2:
        raise UsageError("a study needs at least 2 pictures to choose on and 2 to report on.")
    if settings.images is not None:
        return folder_subjects(settings.images, n_chosen, n_reported, seed=settings.seed, n_reference=n_reference)
    return scene_subjects(
        require_scenes(settings.data), n_chosen, n_reported, seed=settings.seed, n_reference=n_reference
    )


def kept(folder: Path) -> str:
    """What a stopped study leaves behind, for the user."""
    return f"What was finished is kept in {folder}; the same command goes on from there."
