"""Opening a pair: a card or a folder, with its own encoder and decoder or replacements."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from steerlens.decoders import Decoder, Precision, check_fit
from steerlens.devices import choose_device, parse_dtype
from steerlens.encoders import Encoder
from steerlens.errors import ModelError
from steerlens.zoo.cards import Card, Repository
from steerlens.zoo.decoder_opening import negative_for, open_decoder
from steerlens.zoo.encoder_locating import LocatedEncoder, locate_encoder
from steerlens.zoo.encoder_opening import open_encoder
from steerlens.zoo.joint import open_joint
from steerlens.zoo.locating import LocatedPair, locate_pair, pinned
from steerlens.zoo.pair import Pair
from steerlens.zoo.provenance import (
    Provenance,
    decoder_provenance,
    encoder_provenance,
    file_hashes,
    library_versions,
    trained_weights,
)
from steerlens.zoo.reference import find_reference
from steerlens.zoo.sources import card_of
from steerlens.zoo.text import CLIPText, TextSource
from steerlens.zoo.towers import tower_text
from steerlens.zoo.vocabularies import class_vocabulary, load_text_map, load_vocabulary


def open_pair(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    local_files_only: bool = False,
    local: str | Path | None = None,
    encoder: Encoder | str | Path | None = None,
    decoder: Decoder | None = None,
    precision: Precision | None = None,
    offload: bool = False,
) -> Pair:
    """Opens the pair of a card or a folder.

    Args:
        source: the name of a card, or a folder that contains a pair.
        device: as in `load`.
        dtype: as in `load`.
        local_files_only: never use the network.
        local: a folder that replaces the hub, for a card.
        encoder: an encoder, or its source, that replaces the pair's own.
        decoder: a decoder that replaces the pair's own.
        precision: as in `load`.
        offload: as in `load`.

    Raises:
        UsageError: if there is no such model, device or precision.
        ModelError: if a part cannot be fetched, is incomplete or broken, or encoder and decoder do not fit.
    """
    device, requested = choose_device(device), parse_dtype(dtype)
    card, name = card_of(source), str(source)
    options = None if card is None else card.defaults.options()
    located = locate_pair(source, local=local, local_files_only=local_files_only)
    encoder_place, decoder_place = _places(None if local is not None else card, located)
    own_encoder, own_decoder = encoder is None, decoder is None
    notes = _unpinned_notes(card, (encoder_place, decoder_place if own_decoder else None))

    lone: LocatedEncoder | None = None
    if encoder is None and located.joint and decoder is None:
        encoder, decoder = open_joint(
            located, device=device, dtype=requested, name=name, options=options, precision=precision, offloaded=offload
        )
    elif encoder is None:
        joint = located if located.joint else None
        lone = LocatedEncoder(
            located.encoder, name, encoder_place, of_pair=True, joint=joint, processor=located.processor
        )
        encoder = open_encoder(lone, device=device, dtype=requested, name=name)
    elif not isinstance(encoder, Encoder):
        lone = locate_encoder(encoder, local_files_only=local_files_only)
        encoder_place, notes = lone.place, tuple(filter(None, [lone.note]))
        encoder = open_encoder(lone, device=device, dtype=requested, name=str(encoder))
    if decoder is None:
        negative = None if located.joint else negative_for(located.family, encoder)
        memory: dict[str, Any] = {"precision": precision, "offloaded": offload}
        decoder = open_decoder(located, negative, device=device, dtype=requested, name=name, options=options, **memory)
    check_fit(decoder.spec, encoder.spec)
    if card is not None and card.folder is not None and own_encoder:
        _check_card(card, encoder, decoder)

    given_encoder = not own_encoder and lone is None
    hashed = {**({} if lone is None else lone.files), **(located.parts if own_decoder else {})}
    hashes = file_hashes(hashed)
    provenance = Provenance(
        name,
        encoder_provenance(encoder, None if given_encoder else encoder_place),
        decoder_provenance(decoder, decoder_place if own_decoder else None),
        hashes,
        str(device),
        library_versions(),
        card.domain if card is not None and own_decoder else "",
    )
    # A vocabulary belongs to the encoder that was trained with it.
    folder = located.folder if own_encoder else None
    vocabulary = None if folder is None else load_vocabulary(folder, encoder.spec.embedding_size)
    texts: TextSource | None = CLIPText(located.texts) if own_encoder and located.texts is not None else None
    if folder is not None and texts is None:
        texts = load_text_map(folder, encoder.spec.embedding_size, vocabulary)
    if texts is None and lone is not None and lone.joint is None:
        texts = tower_text(lone, encoder.spec.embedding_size)
    if located.processor is not None and own_encoder:
        notes = (*notes, *_weights_notes(name, own_decoder, located.folder, provenance))
    return Pair(
        name,
        encoder,
        decoder,
        class_vocabulary(encoder) if vocabulary is None else vocabulary,
        card,
        provenance,
        texts,
        (*_precision_notes(encoder, requested), *notes),
        find_reference(located.folder if own_encoder and own_decoder else None, hashes, encoder.spec.embedding_size),
    )


def _places(card: Card | None, located: LocatedPair) -> tuple[Repository | Path, Repository | Path]:
    """Returns the origins of encoder and decoder: the hub for a card without a local copy, else folders."""
    if card is None or card.encoder is None:
        return located.encoder, located.decoder
    decoder = located.decoder if card.decoder is None else pinned(card.decoder, located.decoder)
    return pinned(card.encoder, located.encoder), decoder


def _unpinned_notes(card: Card | None, places: Sequence[Repository | Path | None]) -> tuple[str, ...]:
    """Notes the loaded commit of each repository that the card does not pin, in one note."""
    if card is None:
        return ()
    notes = [
        f"the card pins no revision of {place.repository}; this is {place.repository}@{place.revision}"
        for place, listed in zip(places, (card.encoder, card.decoder), strict=True)
        if isinstance(place, Repository) and listed is not None and listed.revision is None
    ]
    return tuple(filter(None, ["; ".join(dict.fromkeys(notes))]))


def _weights_notes(name: str, own_decoder: bool, folder: Path | None, provenance: Provenance) -> tuple[str, ...]:
    """Notes that a bundled decoder was trained with another file of the encoder's weights."""
    trained = {} if folder is None else trained_weights(folder)
    own = {part.removeprefix("image_encoder/"): value for part, value in provenance.sha256.items()}
    if not own_decoder or not trained or all(own.get(file) == value for file, value in trained.items()):
        return ()
    return (
        f"the decoder was trained with another file of these weights (SHA-256 {next(iter(trained.values()))[:12]}...); "
        f"`steerlens doctor {name}` measures whether it fits them",
    )


def _precision_notes(encoder: Encoder, requested: torch.dtype | None) -> tuple[str, ...]:
    if requested is None and encoder.dtype != torch.float32:
        short = str(encoder.dtype).removeprefix("torch.")
        return (f"the encoder is larger than 4 GB and runs in {short}; --dtype float32 for full precision",)
    return ()


def _check_card(card: Card, encoder: Encoder, decoder: Decoder) -> None:
    """Compares the card in a folder with the pair beside it.

    Raises:
        ModelError: if they disagree.
    """
    spec = encoder.spec
    for stated, actual in (
        (f"{card.layers} layers", f"{spec.n_layers} layers"),
        (f"{card.heads} heads", f"{spec.n_heads} heads"),
        (f"embedding_size {card.embedding_size}", f"embedding_size {spec.embedding_size}"),
        (f"consumes {card.consumes}", f"consumes {decoder.spec.consumes}"),
    ):
        if stated != actual:
            raise ModelError(f"{card.folder}: card.yaml says {stated}, and the pair has {actual}.")
