"""Models, pictures and decoding options that the command line of a study names."""

from dataclasses import dataclass
from typing import Protocol

from steerlens.decoders import DecodeOptions
from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.images import picture_files
from steerlens.loading import load, load_encoder
from steerlens.saes import SparseAutoencoder, load_sae
from steerlens.studies.shared.arguments import ComponentArguments, StudySettings, refuse_more, refuse_unused
from steerlens.studies.shared.bench import require_embeddings, with_steps
from steerlens.studies.shared.scenes import require_scenes, scene_subjects
from steerlens.studies.shared.subjects import SubjectSet, folder_subjects
from steerlens.studies.shared.undecoded import open_undecoded, refuse_decoding_options
from steerlens.zoo import Pair


@dataclass(frozen=True, eq=False)
class StudyModels:
    """Models of a study.

    Attributes:
        pair: encoder and decoder.
        judge: an outside encoder that embeds decoded pictures too, or None.
    """

    pair: Pair
    judge: Encoder | None = None


class ModelLoader(Protocol):
    """A function that loads the models of a study, or stands in for them."""

    def __call__(self, settings: StudySettings, judge: str | None = None, *, decoder: bool = True) -> StudyModels:
        """Returns the pair that the settings name, and the judge of that name."""
        ...


def study_sae(arguments: ComponentArguments) -> SparseAutoencoder | None:
    """Reads the sparse autoencoder that the options name; None for a study of heads or neurons.

    Raises:
        UsageError: if options describe an autoencoder that was not given, too few features or neurons are studied, or
            its files do not say what it is.
        ModelError: if its files cannot be read.
    """
    if arguments.neurons and arguments.sae is not None:
        raise UsageError("give --sae to study features, or --neurons to study neurons, not both.")
    if arguments.neurons < 0 or 0 < arguments.neurons < 4:
        raise UsageError(f"a study correlates over neurons: it needs at least 4 of them, not {arguments.neurons}.")
    if arguments.sae is None:
        names = ("sae_site", "sae_activation", "sae_apply_b_dec", "features")
        refuse_unused(arguments, names, "they describe a sparse autoencoder, and none was given (--sae)")
        return None
    if arguments.features < 4:
        raise UsageError(f"a study correlates over features: it needs at least 4 of them, not {arguments.features}.")
    sae = load_sae(
        arguments.sae,
        site=arguments.sae_site,
        activation=arguments.sae_activation,
        apply_b_dec_to_input=arguments.sae_apply_b_dec or None,
    )
    refuse_more(arguments, "features", sae.n_features, f"features in {sae.name}")
    return sae


def load_models(settings: StudySettings, judge: str | None = None, *, decoder: bool = True) -> StudyModels:
    """Loads the pair that the settings name, without `decoder` its encoder alone, and the outside judge.

    Raises:
        UsageError: as in `load_study_pair`.
    """
    return StudyModels(load_study_pair(settings, decoder=decoder), load_judge(judge, settings))


def load_study_pair(settings: StudySettings, *, decoder: bool = True, local_files_only: bool = False) -> Pair:
    """Loads the pair that the settings name; without `decoder`, its encoder alone.

    Raises:
        UsageError: if its decoder reads image tokens, which no study produces; or if options of decoding are given
            without a decoder that denoises.
    """
    if not decoder:
        return open_undecoded(settings, local_files_only=local_files_only)
    pair = load(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        local=settings.local,
        encoder=settings.encoder,
        local_files_only=local_files_only,
    )
    return checked_pair(pair, settings)


def checked_pair(pair: Pair, settings: StudySettings) -> Pair:
    """Checks that a pair can be studied with these settings, and returns it.

    Raises:
        UsageError: as in `load_study_pair`.
    """
    require_embeddings(pair)
    defaults = pair.decoder.spec.defaults
    if defaults.scheduler == "none" and decode_options(pair, settings) != defaults:
        refuse_decoding_options(settings, f"{pair.name} decodes in one pass, without denoising")
    return pair


def load_judge(judge: str | None, settings: StudySettings, *, local_files_only: bool = False) -> Encoder | None:
    """Loads the outside judge, if its name is given."""
    return None if judge is None else load_encoder(judge, device=settings.device, local_files_only=local_files_only)


def decode_options(pair: Pair, settings: StudySettings) -> DecodeOptions:
    """The decoder's defaults with the settings' steps and guidance, where given."""
    return with_steps(pair.decoder.spec.defaults, settings.steps, settings.guidance)


DEFAULT_SELECTION, DEFAULT_REPORTED = 6, 24
"""Pictures to choose on and to report on, if there are enough."""


def load_subjects(
    settings: StudySettings,
    n_selection: int | None,
    n_reported: int | None,
    *,
    n_reference: int = 64,
    choosing: bool = False,
) -> SubjectSet:
    """Loads the pictures that the settings name.

    Args:
        settings: the settings.
        n_selection: pictures to select settings on; 0 for none; None for the default, or fewer in a small folder.
        n_reported: pictures to report on; None for the default, or all other pictures of a small folder.
        n_reference: pictures over which means are taken.
        choosing: True if the study can leave out the selection.

    Raises:
        UsageError: if a folder and a data folder are both given, or neither, or the pictures are too few.
    """
    if settings.images is not None and settings.data is not None:
        raise UsageError("give either --images or --data, not both.")
    none_chosen = n_selection == 0 and choosing
    if (n_selection is not None and n_selection < 2 and not none_chosen) or (n_reported is not None and n_reported < 2):
        none = ", or none (--choose 0)" if choosing else ""
        raise UsageError(f"a study needs at least 2 pictures to choose on{none} and 2 to report on.")
    seed = settings.seed
    if settings.images is not None:
        sizes = folder_sizes(len(picture_files(settings.images)), n_selection, n_reported)
        return folder_subjects(settings.images, *sizes, seed=seed, n_reference=n_reference)
    wanted = (
        DEFAULT_SELECTION if n_selection is None else n_selection,
        DEFAULT_REPORTED if n_reported is None else n_reported,
    )
    return scene_subjects(require_scenes(settings.data), *wanted, seed=seed, n_reference=n_reference)


def folder_sizes(available: int, n_selection: int | None, n_reported: int | None) -> tuple[int, int]:
    """Sizes of a selection and of the reported pictures, where they were not given, for a folder's pictures.

    Below 16 pictures, a choice of settings would be noise: none is made, and all pictures are reported on.
    """
    if n_selection is None and n_reported is None:
        if available < 16:
            return 0, available
        chosen = min(DEFAULT_SELECTION, available // 4)
        return chosen, min(DEFAULT_REPORTED, available - chosen)
    if n_selection is None:
        rest = available - (n_reported or 0)
        return (min(DEFAULT_SELECTION, rest) if rest >= 2 else 0), n_reported or 0
    return n_selection, min(DEFAULT_REPORTED, max(2, available - n_selection)) if n_reported is None else n_reported


def decoder_seeds(settings: StudySettings, count: int) -> tuple[int, ...]:
    """Consecutive seeds of the decoder, from the settings' seed on."""
    return tuple(range(settings.seed, settings.seed + count))
