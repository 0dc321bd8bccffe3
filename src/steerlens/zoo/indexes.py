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
from steerlens.zoo.encoders import find_encoder, open_encoder
from steerlens.zoo.locate import has_no_decoder, is_folder
from steerlens.zoo.pair import Pair
from steerlens.zoo.provenance import decoder_provenance, encoder_provenance, file_hashes, library_versions
from steerlens.zoo.vocabularies import class_vocabulary, load_vocabulary

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
    if is_folder(source):
        own, places = str(Path(source).resolve()), (Path(source) / INDEX, INDEX)
        return next((place for place in places if source_of_index(place) == own), None)
    return INDEX if _same_on_hub(str(source), source_of_index(INDEX)) else None


def _same_on_hub(one: str, other: str) -> bool:
    """Whether two hub ids name the same encoder; one without a revision is that of whichever the other has."""
    (first, _, at), (second, _, pinned) = one.partition("@"), other.partition("@")
    return first == second and (at == pinned or not at or not pinned)


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
    decoder, source, found = NeighboursDecoder(index), "", None
    if not isinstance(encoder, Encoder):
        source = str(encoder) if encoder is not None else decoder.encoder_source
        if not source:
            raise UsageError(
                f"the index in {index} does not say where its encoder is ({decoder.encoder_name}); give it with it."
            )
        found = find_encoder(source, local_files_only=local_files_only)
        encoder = open_encoder(found, device=device, dtype=dtype, name=source)
    check_fit(decoder.spec, encoder.spec)
    _check_same(decoder, encoder)
    known = cards().get(source)
    own = None if known is None else known.bundled_folder
    own_files = {f"neighbours/{file.name}": file for file in sorted(index.glob("neighbours.*"))}
    provenance = {
        "name": str(index),
        "encoder": encoder_provenance(encoder, None if found is None else found.place),
        "decoder": decoder_provenance(decoder, index),
        "sha256": file_hashes({**({} if found is None else found.files), **own_files}),
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


def _check_same(decoder: NeighboursDecoder, encoder: Encoder) -> None:
    image = load_picture(decoder.files[0]).image
    again = encoder.embed(encoder.preprocess([image])).float().cpu()
    cosine = float(cosine_similarity(again, decoder.embeddings[:1])[0])
    if not cosine >= _SAME:
        raise ModelError(
            f"{decoder.spec.name}: the index was made with {decoder.encoder_name}; encoder {encoder.spec.name} gives "
            f"its first picture another embedding (cosine {cosine:.2f}). Index the folder with this encoder."
        )
