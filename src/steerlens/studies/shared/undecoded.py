"""An encoder studied without a decoder: a pair that refuses to decode.

Scores of requested embeddings and effects of ablation need no decoder, so any encoder can be studied on any pictures.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from steerlens.conditioning import Conditioning
from steerlens.decoders import DecodeOptions, DecoderSpec
from steerlens.errors import UsageError
from steerlens.progress import Progress
from steerlens.studies.shared.arguments import StudySettings
from steerlens.zoo import (
    Pair,
    Provenance,
    cards,
    class_vocabulary,
    encoder_provenance,
    file_hashes,
    is_folder,
    library_versions,
    load_vocabulary,
    locate_encoder,
    locate_encoder_in,
    open_encoder,
)

NO_DECODER = "none"
"""Name and family of the missing decoder in summaries and fingerprints."""


class NoDecoder:
    """Stands for the missing decoder of a pair that is studied without decoding.

    Args:
        embedding_size: E of the encoder.
    """

    def __init__(self, embedding_size: int) -> None:
        options = DecodeOptions(steps=1, guidance=1.0, scheduler="none", size=(1, 1))
        self.spec = DecoderSpec(NO_DECODER, NO_DECODER, "image_embedding", embedding_size, options)

    def decode_batches(
        self, conditioning: Conditioning, seeds: Sequence[int], options: DecodeOptions | None = None
    ) -> Iterator[Progress]:
        """Refuses to decode.

        Raises:
            UsageError: always.
        """
        raise UsageError("this study runs without a decoder (--no-decoder) and shows no pictures.")


def is_undecoded(pair: Pair) -> bool:
    """True of a pair without a decoder."""
    return isinstance(pair.decoder, NoDecoder)


def open_undecoded(settings: StudySettings, *, local_files_only: bool = False) -> Pair:
    """Opens the encoder that the settings name, with its vocabulary, as a pair that refuses to decode.

    Raises:
        UsageError: if there is no such encoder, or options of decoding are given.
        ModelError: if it cannot be loaded.
    """
    refuse_decoding_options(settings, "a study without a decoder takes no such option")
    if settings.dtype is not None:
        raise UsageError("--dtype: no effect, because it is the precision of the decoder, and there is none.")
    name = settings.encoder or settings.model
    if settings.local is None:
        located = locate_encoder(name, local_files_only=local_files_only)
    else:
        located = locate_encoder_in(name, settings.local)
    encoder = open_encoder(located, device=settings.device, name=name)
    known = None if is_folder(name) else cards().get(name)
    folder = Path(name) if known is None else known.bundled_folder
    vocabulary = None if folder is None else load_vocabulary(folder, encoder.spec.embedding_size)
    provenance = Provenance(
        name,
        encoder_provenance(encoder, located.place),
        None,
        file_hashes(located.files),
        str(encoder.device),
        library_versions(),
    )
    return Pair(
        name,
        encoder,
        NoDecoder(encoder.spec.embedding_size),
        class_vocabulary(encoder) if vocabulary is None else vocabulary,
        known,
        provenance,
    )


def refuse_decoding_options(settings: StudySettings, why: str) -> None:
    """Refuses options of denoising that were given where there is none.

    Raises:
        UsageError: if there are any.
    """
    given = {"--steps": settings.steps, "--guidance": settings.guidance}
    if words := ", ".join(name for name, value in given.items() if value is not None):
        raise UsageError(f"{words}: no effect, because {why}. Leave out what has no effect.")
