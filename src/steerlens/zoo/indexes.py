"""Indexes of pictures as models: an encoder, and the nearest pictures of a folder in place of a generator."""

from dataclasses import dataclass
from pathlib import Path

import torch

from steerlens.decoders.base import check_fit
from steerlens.decoders.neighbours import NeighboursDecoder, is_index, source_of_index
from steerlens.encoders.base import Encoder
from steerlens.errors import ModelError, UsageError
from steerlens.images import load_picture
from steerlens.scores import cosine_similarity
from steerlens.zoo.cards import cards
from steerlens.zoo.hub import snapshot
from steerlens.zoo.locate import card_files, has_no_decoder, is_folder
from steerlens.zoo.pair import Pair
from steerlens.zoo.parts import processor_beside
from steerlens.zoo.provenance import decoder_provenance, encoder_provenance, library_versions
from steerlens.zoo.vocabularies import class_vocabulary, load_vocabulary
from steerlens.zoo.weights import file_hash

INDEX = Path("neighbours-index")
"""What an index is called where nothing else is said; an encoder without a decoder looks for one of this name."""

_SAME = 0.99
"""Cosine that an indexed picture keeps when it is embedded again, in another precision too."""


@dataclass(frozen=True, eq=False)
class IndexPair(Pair):
    """An encoder and an index of pictures.

    Attributes:
        decoder: the index.
    """

    decoder: NeighboursDecoder


def index_folder(source: str | Path, local: str | Path | None = None) -> Path | None:
    """The folder of the index that is asked for: a folder that holds one, or `neighbours` with one as its local copy.

    Raises:
        UsageError: if `neighbours` is asked for with a folder that holds none.
    """
    if source == "neighbours" and local is not None:
        if not is_index(Path(local)):
            raise UsageError(f"{local} holds no index of pictures; make one with `steerlens neighbours index`.")
        return Path(local)
    try:
        return Path(source) if str(source).strip() and is_index(Path(source)) else None
    except (OSError, ValueError):  # longer than any name of a file, or with a zero in it
        return None


def found_index(source: str | Path) -> Path | None:
    """The index of pictures that an encoder without a decoder is looked at through, or None.

    It is called `neighbours-index`, lies in the encoder's own folder or in the current one, and was made with that very
    encoder.

    Args:
        source: what was asked for as a model; the index of one that has a decoder is not looked for.
    """
    if not has_no_decoder(source):
        return None
    own, places = (str(Path(source).resolve()), [Path(source) / INDEX]) if is_folder(source) else (str(source), [])
    return next((place for place in (*places, INDEX) if source_of_index(place) == own), None)


def given_index(index: str | Path, source: str | Path) -> Path:
    """The folder of an index that the user gave for a model.

    Raises:
        UsageError: if it holds no index; the message says the command that makes one.
    """
    if not is_index(Path(index)):
        pictures = index if is_folder(index) else "PICTURES"
        raise UsageError(
            f"{index} holds no index of pictures; make one with: steerlens neighbours index {pictures} --encoder "
            f"{source} --out {INDEX}"
        )
    return Path(index)


def open_index(
    index: Path,
    *,
    encoder: Encoder | str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    local_files_only: bool = False,
) -> IndexPair:
    """An index as a pair with the encoder that made it.

    Args:
        index: folder of the index.
        encoder: the encoder, or where it is; by default where the index says.
        device: as in `load`.
        dtype: as in `load`.
        local_files_only: never use the network.

    Raises:
        UsageError: if the index does not say where its encoder is, and none was given.
        ModelError: if the encoder is another than the one that made the index.
    """
    decoder, source = NeighboursDecoder(index), ""
    if not isinstance(encoder, Encoder):
        source = str(encoder) if encoder is not None else decoder.encoder_source
        if not source:
            raise UsageError(
                f"the index in {index} does not say where its encoder is ({decoder.encoder_name}); give it with it."
            )
        encoder, _ = indexing_encoder(source, device=device, dtype=dtype, local_files_only=local_files_only)
    check_fit(decoder.spec, encoder.spec)
    _check_same(decoder, encoder)
    known = cards().get(source)
    own = None if known is None else known.bundled_folder
    provenance = {
        "name": str(index),
        "encoder": encoder_provenance(encoder, Path(source) if source else None),
        "decoder": decoder_provenance(decoder, index),
        "sha256": {f"neighbours/{file.name}": file_hash(file) for file in sorted(index.glob("neighbours.*"))},
        "device": str(encoder.device),
        "versions": library_versions(),
    }
    vocabulary = None if own is None else load_vocabulary(own, encoder.spec.embedding_size)
    vocabulary = class_vocabulary(encoder) if vocabulary is None else vocabulary
    note = (
        f"decoder: neighbours, the nearest of {len(decoder.files)} pictures of {decoder.folder} (index {index}); "
        "nothing is generated"
    )
    return IndexPair(str(index), encoder, decoder, vocabulary, None, provenance, notes=(note,))


def indexing_encoder(
    source: str,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    local_files_only: bool = False,
) -> tuple[Encoder, str]:
    """The encoder of a card, a hub id or a folder, without any decoder; and where it can be loaded from again.

    Raises:
        UsageError: if there is no such encoder.
        ModelError: if it cannot be had.
    """
    from steerlens.zoo.load import load, load_encoder

    known = cards().get(source)
    if known is None:
        encoder = load_encoder(source, device=device, dtype=dtype, local_files_only=local_files_only)
        return encoder, str(Path(source).resolve()) if Path(source).is_dir() else source
    if known.bundled_folder is not None:
        return load_encoder(known.bundled_folder, device=device, dtype=dtype, name=source), source
    if known.encoder is None:
        raise UsageError(f"{source} has no encoder of its own; name one.")
    if known.encoder == known.decoder and known.family.startswith("rae-"):
        return load(source, device=device, dtype=dtype, local_files_only=local_files_only).encoder, source
    place, files = card_files(known)[0]
    instead = "Give the folder of a local copy of the encoder instead."
    root = snapshot(place.repository, place.at, files, local_files_only=local_files_only, instead=instead)
    folder = root / place.path
    return load_encoder(folder, processor_beside(folder), device=device, dtype=dtype, name=source), source


def _check_same(decoder: NeighboursDecoder, encoder: Encoder) -> None:
    image = load_picture(decoder.files[0]).image
    again = encoder.embed(encoder.preprocess([image])).float().cpu()
    cosine = float(cosine_similarity(again, decoder.embeddings[:1])[0])
    if not cosine >= _SAME:
        raise ModelError(
            f"{decoder.spec.name}: the index was made with {decoder.encoder_name}; encoder {encoder.spec.name} gives "
            f"its first picture another embedding (cosine {cosine:.2f}). Index the folder with this encoder."
        )
