"""Models, pictures and decoding options that the command line of a study names."""

from steerlens.decoders import DecodeOptions
from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.loading import load, load_encoder
from steerlens.studies.shared.arguments import StudySettings
from steerlens.studies.shared.bench import require_embeddings, with_steps
from steerlens.studies.shared.scenes import require_scenes, scene_subjects
from steerlens.studies.shared.subjects import SubjectSet, folder_subjects
from steerlens.zoo import Pair


def load_study_pair(settings: StudySettings) -> Pair:
    """Loads the pair that the settings name.

    Raises:
        UsageError: if its decoder reads image tokens, which no study produces.
    """
    pair = load(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        local=settings.local,
        encoder=settings.encoder,
    )
    require_embeddings(pair)
    return pair


def load_judge(judge: str | None, settings: StudySettings) -> Encoder | None:
    """Loads the outside judge, if its name is given."""
    return None if judge is None else load_encoder(judge, device=settings.device)


def decode_options(pair: Pair, settings: StudySettings) -> DecodeOptions:
    """The decoder's defaults with the settings' steps and guidance, where given."""
    return with_steps(pair.decoder.spec.defaults, settings.steps, settings.guidance)


def load_subjects(settings: StudySettings, n_selection: int, n_reported: int, *, n_reference: int = 64) -> SubjectSet:
    """Loads the pictures that the settings name.

    Raises:
        UsageError: if a folder and a data folder are both given, or neither, or the pictures are too few.
    """
    if settings.images is not None and settings.data is not None:
        raise UsageError("give either --images or --data, not both.")
    if n_selection < 2 or n_reported < 2:
        raise UsageError("a study needs at least 2 pictures to choose on and 2 to report on.")
    if settings.images is not None:
        return folder_subjects(settings.images, n_selection, n_reported, seed=settings.seed, n_reference=n_reference)
    return scene_subjects(
        require_scenes(settings.data), n_selection, n_reported, seed=settings.seed, n_reference=n_reference
    )


def decoder_seeds(settings: StudySettings, count: int) -> tuple[int, ...]:
    """Consecutive seeds of the decoder, from the settings' seed on."""
    return tuple(range(settings.seed, settings.seed + count))
