"""Loading pairs and encoders: by card, from a folder, or from a hub id, always through the same checks."""

from pathlib import Path
from typing import Any

import torch

from steerlens.borders import native_errors
from steerlens.decoders.base import DecodeOptions, Decoder, check_fit
from steerlens.devices import choose_device, decoder_dtype, parse_dtype
from steerlens.encoders.base import Encoder
from steerlens.errors import ModelError, UsageError
from steerlens.zoo.cards import Card, Repository
from steerlens.zoo.encoders import FoundEncoder, find_alone, open_encoder
from steerlens.zoo.encoders import load_encoder as load_encoder
from steerlens.zoo.families import family_of
from steerlens.zoo.indexes import found_index, given_index, index_folder, open_index
from steerlens.zoo.locate import Located, card_of, locate, pinned
from steerlens.zoo.pair import Pair
from steerlens.zoo.parts import encoder_of, negative_for, unpinned_notes
from steerlens.zoo.provenance import decoder_provenance, encoder_provenance, file_hashes, library_versions
from steerlens.zoo.registry import adapter
from steerlens.zoo.text import CLIPText
from steerlens.zoo.vocabularies import class_vocabulary, load_vocabulary
from steerlens.zoo.vocabularies import read_vocabulary as read_vocabulary


def load(
    source: str | Path = "emoji",
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    local_files_only: bool = False,
    local: str | Path | None = None,
    encoder: Encoder | str | Path | None = None,
    decoder: Decoder | None = None,
    neighbours: str | Path | None = None,
) -> Pair:
    """Loads an encoder and its decoder.

    An encoder that has no decoder gets the nearest pictures of an index that was made with it, where there is one (see
    `zoo.indexes.found_index`); the pair's notes say so.

    Args:
        source: the name of a card, a folder that holds a pair, or `bridge:FOLDER` (see `steerlens.bridges`).
        device: `cpu`, `cuda`, ...; by default a CUDA device if there is one.
        dtype: `auto`, `float32`, `bfloat16` or `float16`. By default the encoder runs in float32, or in half precision
            if it is larger than 4 GB, and the decoder in the fastest precision of the device.
        local_files_only: never use the network.
        local: a folder to take in place of the hub, for a card.
        encoder: an encoder, or where to load one, in place of the pair's own.
        decoder: a decoder in place of the pair's own.
        neighbours: an index of pictures in place of a decoder; the encoder is then the model's, whatever has it.

    Raises:
        UsageError: if there is no such model, device, precision or index.
        ModelError: if the pair cannot be had, is incomplete or broken, or its two parts do not fit.
    """
    if neighbours is not None and (decoder is not None or str(source).startswith("bridge:")):
        raise UsageError("an index of pictures stands in place of a decoder; give it with an encoder alone.")
    if str(source).startswith("bridge:"):
        from steerlens.bridges.pair import load_bridged

        asked_for: Any = {"device": device, "dtype": dtype, "local_files_only": local_files_only, "local": local}
        return load_bridged(str(source).removeprefix("bridge:"), encoder=encoder, decoder=decoder, **asked_for)
    index, owner = None if decoder is not None else index_folder(source, local), encoder
    if neighbours is not None:
        index, owner = given_index(neighbours, source), source if encoder is None else encoder
    elif index is None and decoder is None and encoder is None and local is None:
        index, owner = found_index(source), source
    if index is not None:
        return open_index(index, encoder=owner, device=device, dtype=dtype, local_files_only=local_files_only)
    chosen, asked, known = choose_device(device), parse_dtype(dtype), card_of(source)
    name, options = str(source), None if known is None else known.defaults.options()
    located = locate(source, local=local, local_files_only=local_files_only)
    hub = known is not None and known.encoder is not None and local is None
    folders: dict[str, Path] = {}

    own_encoder, given, unpinned = encoder is None, isinstance(encoder, Encoder), ""
    first: Repository | Path = located.encoder
    second: Repository | Path | None = None if decoder is not None else located.decoder
    if hub and known is not None and known.encoder is not None and known.decoder is not None:
        first = pinned(known.encoder, located.encoder)
        second = None if decoder is not None else pinned(known.decoder, located.decoder)
        unpinned = "; ".join(unpinned_notes(known, (first, second)))
    if located.joint and decoder is None:  # one model is both, and is read once
        folders |= located.parts
        decoder = load_decoder(located, None, device=chosen, dtype=asked, name=name, options=options)
        encoder = encoder_of(decoder, name) if encoder is None else encoder
    if not isinstance(encoder, Encoder):
        if encoder is None:
            joint = located if located.joint else None
            found, encoder_name = FoundEncoder(located.encoder, name, first, of_pair=True, joint=joint), name
        else:
            found, encoder_name = find_alone(str(encoder), local_files_only=local_files_only), str(encoder)
            first, unpinned = found.place, found.note
        folders |= found.files
        encoder = open_encoder(found, device=chosen, dtype=asked, name=encoder_name)

    if decoder is None:
        folders |= located.parts
        negative = negative_for(adapter("steerlens.decoders", located.family), encoder)
        decoder = load_decoder(located, negative, device=chosen, dtype=asked, name=name, options=options)
    check_fit(decoder.spec, encoder.spec)

    if known is not None and known.folder is not None and own_encoder:
        _check_card(known, encoder, decoder)
    provenance = {
        "name": name,
        "encoder": encoder_provenance(encoder, None if given else first),
        "decoder": decoder_provenance(decoder, second),
        "sha256": file_hashes(folders),
        "device": str(chosen),
        "versions": library_versions(),
    }
    # A vocabulary belongs to the encoder that was trained with it.
    own = located.folder if own_encoder else None
    vocabulary = None if own is None else load_vocabulary(own, encoder.spec.embedding_size)
    vocabulary = class_vocabulary(encoder) if vocabulary is None else vocabulary
    texts = CLIPText(located.texts) if own_encoder and located.texts is not None else None
    return Pair(
        name,
        encoder,
        decoder,
        vocabulary,
        known,
        provenance,
        texts,
        (*_notes(encoder, asked), *filter(None, [unpinned])),
    )


def load_decoder(
    source: Path | Located,
    negative: torch.Tensor | None,
    *,
    device: torch.device,
    dtype: torch.dtype | None = None,
    name: str = "",
    options: DecodeOptions | None = None,
) -> Decoder:
    """Loads a decoder from a folder of the hub's layout.

    Args:
        source: a folder with `model_index.json` and a folder for each component, or what `locate` found.
        negative: what stands for no condition, a row of conditioning (see `negative_for`); None for the decoder's own.
        device: where to put it.
        dtype: precision; None for the fastest of the device.
        name: what to call it in reports.
        options: how it is meant to be run.

    Raises:
        ModelError: if it is incomplete or broken, or takes embeddings of another size.
    """
    located = Located(source, source, source, family=family_of(source)) if isinstance(source, Path) else source
    kind = adapter("steerlens.decoders", located.family)
    beside = {} if located.adapter is None else {"adapter": located.adapter}
    given = {"device": device, "dtype": decoder_dtype(device, dtype), "name": name or str(located.decoder)}
    with native_errors(f"decoder {given['name']} cannot be loaded"):
        return kind.from_folder(located.decoder, negative, options=options, **given, **beside)


def default_options(card: Card | None, size: tuple[int, int]) -> DecodeOptions:
    """How a decoder is run when nothing else is asked for: as its card says, or as most decoders of its family are.

    Args:
        card: what the zoo says of the pair, or None for a folder.
        size: height and width in pixels that the decoder was trained for.
    """
    return DecodeOptions(25, 4.0, "dpm++", size) if card is None else card.defaults.options()


def _check_card(card: Card, encoder: Encoder, decoder: Decoder) -> None:
    """Makes sure that the card in a folder is that of the pair beside it."""
    spec = encoder.spec
    for said, found in (
        (f"{card.layers} layers", f"{spec.n_layers} layers"),
        (f"{card.heads} heads", f"{spec.n_heads} heads"),
        (f"embedding_size {card.embedding_size}", f"embedding_size {spec.embedding_size}"),
        (f"consumes {card.consumes}", f"consumes {decoder.spec.consumes}"),
    ):
        if said != found:
            raise ModelError(f"{card.folder}: card.yaml says {said}, and the pair has {found}.")


def _notes(encoder: Encoder, asked: torch.dtype | None) -> tuple[str, ...]:
    if asked is None and encoder.dtype != torch.float32:
        short = str(encoder.dtype).removeprefix("torch.")
        return (f"the encoder is larger than 4 GB and runs in {short}; --dtype float32 for full precision",)
    return ()
