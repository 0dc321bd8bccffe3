"""Opening an encoder: a native model from a folder, wrapped by the adapter that supports it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from steerlens.borders import native_errors
from steerlens.devices import choose_device, encoder_dtype, parse_dtype
from steerlens.encoders import Encoder, Loading, TokenReadout
from steerlens.errors import ModelError, UsageError
from steerlens.storage import check_library_folder, load_module, quiet_libraries, read_json, read_tensors
from steerlens.zoo.encoder_locating import LocatedEncoder, inner_folder, locate_encoder, locate_lone_encoder
from steerlens.zoo.joint import open_joint
from steerlens.zoo.registry import adapter, adapter_for, encoder_adapters, loading_for, opener_for
from steerlens.zoo.wrappers import unwrapped


def open_encoder(
    located: LocatedEncoder,
    processor: Any = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    name: str = "",
) -> Encoder:
    """Opens a located encoder.

    Args:
        located: the located encoder.
        processor: an image processor that replaces its own.
        device: as in `load`.
        dtype: as in `load`.
        name: its name in reports; by default its source.

    Raises:
        UsageError: if there is no such device or precision.
        ModelError: if it cannot be loaded, or no adapter takes it.
    """
    chosen, precision, name = choose_device(device), parse_dtype(dtype), name or located.source
    with native_errors(f"{name} cannot be loaded"):
        encoder = _open(located, processor, chosen, precision, name)
    return encoder if located.shape is None else shaped(encoder, located.shape)


def _open(
    located: LocatedEncoder, processor: Any, device: torch.device, dtype: torch.dtype | None, name: str
) -> Encoder:
    if located.joint is not None:
        encoder, _ = open_joint(located.joint, device=device, dtype=dtype, name=name)
        return encoder
    inner = inner_folder(located.folder)
    if processor is None and located.of_pair and located.processor is None:
        processor = _processor_beside(located.folder)
    opener = opener_for(inner) if located.library is None else adapter("steerlens.encoders", located.library)
    if opener is not None:
        if processor is None and getattr(opener, "reads_processor", False):
            processor = _processor(located.processing, opener)
        return opener.from_folder(inner, processor, device=device, dtype=dtype, name=name)
    weights = read_tensors(inner, "image_encoder")
    kind, loading = _native_class(inner, weights.shapes)
    model = load_module(
        kind,
        inner,
        "image_encoder",
        dtype=encoder_dtype(device, weights.parameters, dtype),
        device=device,
        ignore=loading.ignore,
        arguments=dict(loading.arguments),
    )
    wrapped = adapter_for(model)
    own = _processor(located.processing, wrapped) if processor is None else processor
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
    readout: TokenReadout | None = None,
    shape: tuple[int, int] | None = None,
) -> Encoder:
    """Opens one encoder.

    Args:
        source: a native model, also one wrapped for training; a folder with `config.json`, or with `image_encoder` and
            `image_processor` in it; a hub id, `owner/name` or `owner/name@revision`, with `hf-hub:` before it for a
            model of open_clip; the name of a pair; or a library's name, `open_clip:ViT-B-16/laion2b_s34b_b88k` or
            `timm:vit_base_patch16_224.mae`. Of a vision-language model, the vision tower is taken.
        processor: the image processor of a native model, or a processor that has one.
        device: as in `load`; a native model stays where it is.
        dtype: as in `load`; a native model stays as it is.
        revision: commit, branch or tag of a hub id.
        local_files_only: never use the network.
        name: its name in reports.
        readout: for towers without a pooling of their own: `mean` of the patches, or the number of a token.
        shape: for models of pictures of any shape (NaFlex): width and height of the pictures to see, which by default
            are squashed to a square.

    Raises:
        UsageError: if there is no such source, its model pools its tokens itself and a readout is given, or it sees
            pictures of one shape and another is given.
        ModelError: if it cannot be loaded, or no adapter takes it.
    """
    processor = getattr(processor, "image_processor", processor)
    if isinstance(source, torch.nn.Module):
        if processor is None:
            raise UsageError("a native model needs its image processor too: load_encoder(model, processor).")
        adapters = tuple(encoder_adapters())
        with native_errors(f"{name or type(source).__name__} cannot be unwrapped"):
            native = unwrapped(source, lambda model: any(adapter.accepts(model) for adapter in adapters))
        kind = adapter_for(native)
        with native_errors(f"{name or type(native).__name__} cannot be wrapped"):
            encoder = kind(native, processor, name=name) if name else kind(native, processor)
    else:
        if revision is None:
            located = locate_encoder(source, local_files_only=local_files_only)
        else:
            located = locate_lone_encoder(str(source), revision, local_files_only=local_files_only)
        encoder = open_encoder(located, processor, device=device, dtype=dtype, name=name or str(source))
    if readout is not None:
        encoder = _chosen(encoder, "with_readout", "pools its tokens itself; leave readout out.")(readout)
    if shape is not None:
        encoder = shaped(encoder, shape)
    return encoder


def shaped(encoder: Encoder, shape: tuple[int, int]) -> Encoder:
    """Returns the encoder that sees pictures of a shape.

    Args:
        encoder: the encoder.
        shape: width and height of the pictures.

    Raises:
        UsageError: if these are not two whole numbers, or the encoder sees pictures of one shape.
    """
    choose = _chosen(encoder, "for_shape", "sees pictures of one shape; leave shape out.")
    given: Any = shape
    whole = isinstance(given, tuple | list) and len(given) == 2 and all(type(side) is int for side in given)
    if not whole:
        raise UsageError(f"a shape is the width and the height of pictures, such as (448, 336), not {shape!r}.")
    return choose(*given)


def _chosen(encoder: Encoder, method: str, otherwise: str) -> Callable[..., Encoder]:
    """Returns a method that only some adapters have."""
    choose: Callable[..., Encoder] | None = getattr(encoder, method, None)
    if choose is None:
        raise UsageError(f"{encoder.spec.name} {otherwise}")
    return choose


def _processor_beside(folder: Path) -> Any:
    """Returns CLIP's usual processor for an encoder saved without any, as with IP-Adapters; else None."""
    places = (folder, folder / "image_encoder", folder / "image_processor", folder / "feature_extractor")
    inner = folder / "image_encoder"
    # A folder that is there and empty is broken, not left out.
    if any((place / "preprocessor_config.json").is_file() for place in places) or any(p.is_dir() for p in places[2:]):
        return None
    config = read_json(inner / "config.json", "image_encoder") if (inner / "config.json").is_file() else {}
    if config.get("architectures") != ["CLIPVisionModelWithProjection"]:
        return None
    from transformers import CLIPImageProcessorPil

    side = config.get("image_size", 224)
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def _native_class(folder: Path, weights: Mapping[str, tuple[int, ...]]) -> tuple[Any, Loading]:
    """Returns the class of transformers for a folder's model and its recipe, from an adapter or the config."""
    import transformers

    config = read_json(folder / "config.json", "image_encoder")
    named = (config.get("architectures") or [""])[0]
    loading: Loading = loading_for(config, weights) or Loading(named)
    kind = getattr(transformers, loading.kind, None) if loading.kind else None
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        raise ModelError(f"image_encoder: {folder / 'config.json'} names no model of transformers ({named or 'none'}).")
    return kind, loading


def _processor(folder: Path, adapter: Any) -> Any:
    check_library_folder(folder, "image_processor")
    own = adapter.load_processor(folder) if hasattr(adapter, "load_processor") else None
    if own is not None:
        return own
    from transformers import AutoImageProcessor

    # By default transformers uses another backend, with different rounding, if torchvision is installed.
    options: dict[str, Any] = {"backend": "pil", "local_files_only": True, "trust_remote_code": False}
    with native_errors(f"image_processor: {folder} cannot be loaded"), quiet_libraries():
        return AutoImageProcessor.from_pretrained(folder, **options)
