"""Encoders by themselves: where one is, whether of a card, a folder or the hub, and opening it without any decoder."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from steerlens.borders import native_errors
from steerlens.decoders.neighbours import is_index, source_of_index
from steerlens.devices import choose_device, encoder_dtype, parse_dtype
from steerlens.encoders.base import Encoder
from steerlens.encoders.pretrained import Loading
from steerlens.errors import ModelError, UsageError
from steerlens.storage.weights import load_module, quiet_libraries, read_json, read_tensors
from steerlens.zoo.cards import Card, Repository, cards
from steerlens.zoo.hub import snapshot
from steerlens.zoo.locate import (
    OPEN_CLIP_HUB,
    Located,
    card_files,
    card_of,
    has_no_decoder,
    is_folder,
    is_joint,
    locate,
    locate_encoder,
    pinned,
)
from steerlens.zoo.parts import encoder_of, processor_beside
from steerlens.zoo.registry import adapter, adapter_for, loading_for, opener_for


@dataclass(frozen=True)
class FoundEncoder:
    """Where an encoder is on this machine.

    Attributes:
        folder: with `config.json`, or with `image_encoder` and `image_processor` in it.
        source: what finds it again from anywhere: a card's name, the path of a folder, or a hub id with its commit.
        place: where its files came from.
        note: what the user should hear of; mostly empty.
        library: `open_clip` where the source asks for its model: many repositories hold one of transformers too.
        of_pair: whether it is a pair's own, which may be saved without the image processor that it is used with.
        joint: the model that it is a part of, where encoder and decoder are one.
    """

    folder: Path
    source: str
    place: Repository | Path
    note: str = ""
    library: str | None = None
    of_pair: bool = False
    joint: Located | None = None

    @property
    def files(self) -> dict[str, Path]:
        """The folders that decide what it gives, by component; see `provenance.file_hashes`."""
        return {"image_encoder": inner_folder(self.folder), "image_processor": processor_folder(self.folder)}


def find_encoder(source: str | Path, *, local_files_only: bool = False, config_only: bool = False) -> FoundEncoder:
    """Finds the encoder of a card or of a pair's folder, or one by itself; of a card no decoder is fetched.

    Args:
        source: a card's name, a folder (of an index of pictures: what made it), or a hub id; see `load_encoder`.
        local_files_only: never use the network.
        config_only: fetch the config alone.

    Raises:
        UsageError: if it is none of them.
        ModelError: if it is not to be had.
    """
    text = str(source)
    known = cards().get(text)
    if known is not None:
        return _of_card(known, local_files_only, config_only)
    if not is_folder(source):
        if "/" not in text:
            card_of(text)  # says which names there are
        return find_alone(text, local_files_only=local_files_only, config_only=config_only)
    folder = Path(source).resolve()
    if is_index(folder):
        made = find_encoder(source_of_index(folder), local_files_only=local_files_only, config_only=config_only)
        return replace(made, source=str(folder))
    inside, alone = (folder / "image_encoder").is_dir(), has_no_decoder(folder)
    if inside or alone or opener_for(folder) is not None:
        return FoundEncoder(folder, str(folder), folder, of_pair=inside and not alone)
    located = locate(folder)
    joint = located if located.joint else None
    return FoundEncoder(located.encoder, str(folder), folder, of_pair=True, joint=joint)


def find_alone(
    source: str, revision: str | None = None, *, local_files_only: bool = False, config_only: bool = False
) -> FoundEncoder:
    """Finds an encoder in a folder or on the hub; arguments and errors as in `locate_encoder`."""
    folder, place, note = locate_encoder(source, revision, local_files_only=local_files_only, config_only=config_only)
    if isinstance(place, Path):
        return FoundEncoder(folder, str(folder.resolve()), place)
    mark = OPEN_CLIP_HUB if source.startswith(OPEN_CLIP_HUB) else ""
    text = f"{mark}{place.repository}@{place.revision}"
    return FoundEncoder(folder, text, place, note, library="open_clip" if mark else None)


def _of_card(known: Card, local_files_only: bool, config_only: bool) -> FoundEncoder:
    if known.bundled_folder is not None:
        folder = locate(known.name).encoder
        return FoundEncoder(folder, known.name, folder, of_pair=True)
    if known.encoder is None:
        raise UsageError(f"{known.name} has no encoder of its own; name one.")
    if is_joint(known) and not config_only:
        located = locate(known.name, local_files_only=local_files_only)
        return FoundEncoder(located.encoder, known.name, pinned(known.encoder, located.encoder), joint=located)
    place, files = card_files(known)[0]
    files = tuple(file for file in files if file.endswith("config.json")) if config_only else files
    instead = "Give the folder of a local copy of the encoder instead."
    root = snapshot(place.repository, place.at, files, local_files_only=local_files_only, instead=instead)
    return FoundEncoder(root / place.path, known.name, pinned(place, root), of_pair=True)


def open_encoder(
    found: FoundEncoder,
    processor: Any = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    name: str = "",
) -> Encoder:
    """Opens an encoder that was found.

    Args:
        found: where it is.
        processor: an image processor in place of its own.
        device: as in `load`.
        dtype: as in `load`.
        name: what to call it in reports; by default its source.

    Raises:
        UsageError: if there is no such device or precision.
        ModelError: if it cannot be loaded, or no adapter takes it.
    """
    chosen, asked, name = choose_device(device), parse_dtype(dtype), name or found.source
    with native_errors(f"{name} cannot be loaded"):
        return _open(found, processor, chosen, asked, name)


def _open(found: FoundEncoder, processor: Any, chosen: torch.device, asked: torch.dtype | None, name: str) -> Encoder:
    if found.joint is not None:
        from steerlens.loading import load_decoder

        return encoder_of(load_decoder(found.joint, None, device=chosen, dtype=asked, name=name), name)
    inner = inner_folder(found.folder)
    if processor is None and found.of_pair:
        processor = processor_beside(found.folder)
    opener = opener_for(inner) if found.library is None else adapter("steerlens.encoders", found.library)
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
    own = _processor(processor_folder(found.folder), wrapped) if processor is None else processor
    return wrapped(model, own, name=name)


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
        with native_errors(f"{name or type(source).__name__} cannot be wrapped"):
            return kind(source, processor, name=name) if name else kind(source, processor)
    found = find_alone(str(source), revision, local_files_only=local_files_only)
    return open_encoder(found, processor, device=device, dtype=dtype, name=name or str(source))


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

    # Left to itself transformers takes another backend, with other rounding, wherever torchvision is installed.
    options = {"backend": "pil", "local_files_only": True, "trust_remote_code": False}
    with native_errors(f"image_processor: {folder} cannot be loaded"), quiet_libraries():
        return AutoImageProcessor.from_pretrained(folder, **options)
