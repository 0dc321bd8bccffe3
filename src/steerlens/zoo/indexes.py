"""Indexes of pictures as models: an encoder, and the nearest pictures of a folder instead of a generator."""

from dataclasses import dataclass
from pathlib import Path

import torch

from steerlens.decoders import Decoder, NeighboursDecoder, check_fit, is_index, source_of_index
from steerlens.encoders import Encoder
from steerlens.errors import ModelError, UsageError
from steerlens.images import load_picture
from steerlens.scores import cosine_similarity
from steerlens.zoo.cards import cards
from steerlens.zoo.encoder_locating import locate_encoder
from steerlens.zoo.encoder_opening import open_encoder
from steerlens.zoo.pair import Pair
from steerlens.zoo.provenance import (
    Provenance,
    decoder_provenance,
    encoder_provenance,
    file_hashes,
    library_versions,
)
from steerlens.zoo.sources import has_no_decoder, is_folder
from steerlens.zoo.towers import tower_text
from steerlens.zoo.vocabularies import class_vocabulary, load_vocabulary

INDEX = Path("neighbours-index")
"""Default name of an index, and the name that an encoder without a decoder looks for."""

_SAME = 0.99
"""Least cosine of an indexed picture with its embedding computed again, in any precision."""


@dataclass(frozen=True, eq=False)
class IndexPair(Pair):
    """An encoder and an index of pictures.

    Attributes:
        decoder: the index.
    """

    decoder: NeighboursDecoder


def index_folder(source: str | Path, local: str | Path | None = None) -> Path | None:
    """Returns the folder of the index that `source` names: itself, or the local copy of `neighbours`.

    Raises:
        UsageError: if the local copy of `neighbours` contains no index.
    """
    if source == "neighbours" and local is not None:
        if not is_index(Path(local)):
            raise UsageError(f"{local} holds no index of pictures; make one with `steerlens neighbours index`.")
        return Path(local)
    try:
        return Path(source) if str(source).strip() and is_index(Path(source)) else None
    except (OSError, ValueError):  # longer than any file name, or with a null byte
        return None


@dataclass(frozen=True, eq=False)
class RequestedIndex:
    """An index that replaces a decoder, with its encoder.

    Attributes:
        folder: folder of the index.
        encoder: the encoder, or its source; None for the encoder that the index names.
    """

    folder: Path
    encoder: Encoder | str | Path | None


def requested_index(
    source: str | Path,
    neighbours: str | Path | None = None,
    *,
    local: str | Path | None = None,
    encoder: Encoder | str | Path | None = None,
    decoder: Decoder | None = None,
) -> RequestedIndex | None:
    """Returns the index that the arguments of `load` name; None if they name a pair.

    Raises:
        UsageError: if a folder given for an index contains none.
    """
    if neighbours is not None:
        return RequestedIndex(given_index(neighbours, source), source if encoder is None else encoder)
    if decoder is not None:
        return None
    folder = index_folder(source, local)
    if folder is not None:
        return RequestedIndex(folder, encoder)
    folder = found_index(source) if encoder is None and local is None else None
    return None if folder is None else RequestedIndex(folder, source)


def found_index(source: str | Path) -> Path | None:
    """Finds the index of pictures that replaces a missing decoder, or returns None.

    It is called `neighbours-index`, lies in the encoder's own folder or in the current folder, and was built with the
    same encoder.

    Args:
        source: the user's model; a model with a decoder needs no index.
    """
    if not has_no_decoder(source):
        return None
    if is_folder(source):
        own, places = str(Path(source).resolve()), (Path(source) / INDEX, INDEX)
        return next((place for place in places if source_of_index(place) == own), None)
    return INDEX if _same_on_hub(str(source), source_of_index(INDEX)) else None


def _same_on_hub(left: str, right: str) -> bool:
    """True if two hub ids name the same encoder; an id without a revision matches any revision."""
    (first, _, at), (second, _, pinned) = left.partition("@"), right.partition("@")
    return first == second and (at == pinned or not at or not pinned)


def given_index(index: str | Path, source: str | Path) -> Path:
    """Returns the folder of the user's index for a model.

    Raises:
        UsageError: if it contains no index; the message gives the command that builds it.
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
    """Opens an index as a pair with its encoder.

    Args:
        index: folder of the index.
        encoder: the encoder, or its source; by default that in the index.
        device: as in `load`.
        dtype: as in `load`.
        local_files_only: never use the network.

    Raises:
        UsageError: if the index does not name the source of its encoder, and none was given.
        ModelError: if the index was built with another encoder.
    """
    decoder, source, located = NeighboursDecoder(index), "", None
    if not isinstance(encoder, Encoder):
        source = str(encoder) if encoder is not None else decoder.encoder_source
        if not source:
            raise UsageError(
                f"the index in {index} does not say where its encoder is ({decoder.encoder_name}); give it with it."
            )
        located = locate_encoder(source, local_files_only=local_files_only)
        encoder = open_encoder(located, device=device, dtype=dtype, name=source)
    check_fit(decoder.spec, encoder.spec)
    _check_same(decoder, encoder)
    card = cards().get(source)
    own = None if card is None else card.bundled_folder
    own_files = {f"neighbours/{file.name}": file for file in sorted(index.glob("neighbours.*"))}
    provenance = Provenance(
        str(index),
        encoder_provenance(encoder, None if located is None else located.place),
        decoder_provenance(decoder, index),
        file_hashes({**({} if located is None else located.files), **own_files}),
        str(encoder.device),
        library_versions(),
        cards()["neighbours"].domain,
    )
    vocabulary = None if own is None else load_vocabulary(own, encoder.spec.embedding_size)
    vocabulary = class_vocabulary(encoder) if vocabulary is None else vocabulary
    note = (
        f"decoder: neighbours, the nearest of {len(decoder.files)} pictures of {decoder.folder} (index {index}); "
        "nothing is generated"
    )
    texts = None if located is None or located.joint else tower_text(located, encoder.spec.embedding_size)
    return IndexPair(str(index), encoder, decoder, vocabulary, None, provenance, texts, (note,))


def _check_same(decoder: NeighboursDecoder, encoder: Encoder) -> None:
    image = load_picture(decoder.files[0]).image
    again = encoder.embed(encoder.preprocess([image])).float().cpu()
    cosine = float(cosine_similarity(again, decoder.embeddings[:1])[0])
    if not cosine >= _SAME:
        raise ModelError(
            f"{decoder.spec.name}: the index was made with {decoder.encoder_name}; encoder {encoder.spec.name} gives "
            f"its first picture another embedding (cosine {cosine:.2f}). Index the folder with this encoder."
        )
