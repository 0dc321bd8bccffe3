"""Loading pairs and encoders: by card, from a folder, or from a hub id, always through the same checks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from steerlens.decoders.base import DecodeOptions, Decoder, check_fit
from steerlens.encoders.base import Encoder
from steerlens.encoders.pretrained import Loading
from steerlens.errors import ModelError, UsageError
from steerlens.zoo.cards import Card, Repository
from steerlens.zoo.devices import choose_device, decoder_dtype, encoder_dtype, parse_dtype
from steerlens.zoo.families import family_of
from steerlens.zoo.indexes import found_index, given_index, index_folder, open_index
from steerlens.zoo.locate import OPEN_CLIP_HUB, Located, card_of, locate, locate_encoder, pinned
from steerlens.zoo.pair import Pair
from steerlens.zoo.parts import encoder_of, negative_for, processor_beside, unpinned_notes
from steerlens.zoo.provenance import decoder_provenance, encoder_provenance, file_hashes, library_versions
from steerlens.zoo.registry import adapter, adapter_for, loading_for, opener_for
from steerlens.zoo.text import CLIPText
from steerlens.zoo.vocabularies import class_vocabulary, load_vocabulary
from steerlens.zoo.vocabularies import read_vocabulary as read_vocabulary
from steerlens.zoo.weights import load_module, quiet_libraries, read_json, read_tensors


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

    own_encoder, unpinned = encoder is None, ""
    first: Repository | Path | None = located.encoder
    second: Repository | Path | None = None if decoder is not None else located.decoder
    if hub and known is not None and known.encoder is not None and known.decoder is not None:
        first = pinned(known.encoder, located.encoder)
        second = None if decoder is not None else pinned(known.decoder, located.decoder)
        unpinned = "; ".join(unpinned_notes(known, (first, second)))
    kind = adapter("steerlens.decoders", located.family)
    if located.joint and decoder is None:  # one model is both, and is read once
        folders |= located.parts
        decoder = load_decoder(located, None, device=chosen, dtype=asked, name=name, options=options)
        encoder = encoder_of(decoder, name) if encoder is None else encoder
    if not isinstance(encoder, Encoder):
        folder = located.encoder
        if encoder is not None:
            folder, first, unpinned = locate_encoder(str(encoder), local_files_only=local_files_only)
        folders["image_encoder"] = inner_folder(folder)
        folders["image_processor"] = processor_folder(folder)
        processor = processor_beside(folder) if own_encoder else None
        encoder_name = name if own_encoder else str(encoder)
        encoder = load_encoder(folder, processor, device=chosen, dtype=asked, name=encoder_name)
    elif not own_encoder:
        first = None

    if decoder is None:
        folders |= located.parts
        negative = negative_for(kind, encoder)
        decoder = load_decoder(located, negative, device=chosen, dtype=asked, name=name, options=options)
    check_fit(decoder.spec, encoder.spec)

    if known is not None and known.folder is not None and own_encoder:
        _check_card(known, encoder, decoder)
    provenance = {
        "name": name,
        "encoder": encoder_provenance(encoder, first),
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


def load_encoder(
    source: str | Path | torch.nn.Module,
    processor: Any = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    name: str = "",
) -> Encoder:
    """Opens one encoder.

    Args:
        source: a native model; a folder with `config.json`, or with `image_encoder` and `image_processor` in it; or a
            hub id, `owner/name` or `owner/name@revision`, with `hf-hub:` before it for a model of open_clip.
        processor: the image processor of a native model.
        device: as in `load`; a native model stays where it is.
        dtype: as in `load`; a native model stays as it is.
        revision: commit, branch or tag of a hub id.
        local_files_only: never use the network.
        name: what to call it in reports.

    Raises:
        UsageError: if there is no such source.
        ModelError: if it cannot be loaded, or no adapter takes it.
    """
    if isinstance(source, torch.nn.Module):
        if processor is None:
            raise UsageError("a native model needs its image processor too: load_encoder(model, processor).")
        kind = adapter_for(source)
        return kind(source, processor, name=name) if name else kind(source, processor)
    folder, _, _ = locate_encoder(str(source), revision, local_files_only=local_files_only)
    inner, chosen, asked, name = inner_folder(folder), choose_device(device), parse_dtype(dtype), name or str(source)
    # Many repositories hold a model of transformers too, which is not the one that was asked for.
    library = adapter("steerlens.encoders", "open_clip") if str(source).startswith(OPEN_CLIP_HUB) else None
    opener = opener_for(inner) if library is None else library
    if opener is not None:
        return opener.from_folder(inner, processor, device=chosen, dtype=asked, name=name)
    weights = read_tensors(inner, "image_encoder")
    kind, loading = _native_class(inner, weights.shapes)
    model = load_module(
        kind,
        inner,
        "image_encoder",
        dtype=encoder_dtype(chosen, weights.parameters, asked),
        device=chosen,
        ignore=loading.ignore,
        arguments=dict(loading.arguments),
    )
    wrapped = adapter_for(model)
    return wrapped(model, _processor(processor_folder(folder), wrapped) if processor is None else processor, name=name)


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
    return kind.from_folder(located.decoder, negative, options=options, **given, **beside)


def default_options(card: Card | None, size: tuple[int, int]) -> DecodeOptions:
    """How a decoder is run when nothing else is asked for: as its card says, or as most decoders of its family are.

    Args:
        card: what the zoo says of the pair, or None for a folder.
        size: height and width in pixels that the decoder was trained for.
    """
    return DecodeOptions(25, 4.0, "dpm++", size) if card is None else card.defaults.options()


def inner_folder(folder: Path) -> Path:
    """The folder that holds an encoder's own config and weights."""
    return folder / "image_encoder" if (folder / "image_encoder").is_dir() else folder


def processor_folder(folder: Path) -> Path:
    """The folder that holds the config of an encoder's image processor."""
    for name in ("image_processor", "feature_extractor"):
        if (folder / name).is_dir():
            return folder / name
    return inner_folder(folder)


def _native_class(folder: Path, weights: Mapping[str, tuple[int, ...]]) -> tuple[Any, Loading]:
    """The class of transformers that a folder's model is loaded as, and how: as an adapter says, or the config."""
    import transformers

    config = read_json(folder / "config.json", "image_encoder")
    named = (config.get("architectures") or [""])[0]
    loading: Loading = loading_for(config, weights) or Loading(named)
    kind = getattr(transformers, loading.kind, None) if loading.kind else None
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        raise ModelError(f"image_encoder: {folder / 'config.json'} names no model of transformers ({named or 'none'}).")
    return kind, loading


def _processor(folder: Path, adapter: Any) -> Any:
    own = adapter.load_processor(folder) if hasattr(adapter, "load_processor") else None
    if own is not None:
        return own
    from transformers import AutoImageProcessor

    try:
        with quiet_libraries():
            # Left to itself transformers takes another backend, with other rounding, wherever torchvision is installed.
            return AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"image_processor: {folder} cannot be loaded: {reason}") from error


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
