"""Identity of a pair: everything about its models that decides the numbers."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from PIL import Image
from torch import Tensor, nn

from steerlens.encoders import Encoder
from steerlens.errors import ModelError
from steerlens.storage.parameters import weights_hash
from steerlens.vocabulary import Vocabulary
from steerlens.zoo.pair import Pair
from steerlens.zoo.provenance import PartProvenance


def models_identity(pair: Pair) -> dict[str, Any]:
    """Returns everything about the models that decides the numbers, independent of file locations and versions.

    Files are identified by their hashes. A model without a file, or changed in memory since loading, is hashed itself:
    its weights and its settings.
    """
    provenance = pair.provenance
    hashes = dict(provenance.sha256)
    encoder = {**_named(provenance.encoder), **encoder_identity(pair.encoder)}
    decoder = _named(provenance.decoder)
    if not (weights_are_files(hashes, "image_encoder") and pair.is_as_loaded):
        encoder["weights"] = weights_hash(pair.encoder)
    given = provenance.decoder is None or provenance.decoder.place is None
    if given or not pair.has_decoder_as_loaded:
        decoder["weights"] = weights_hash(pair.decoder)
    return {"encoder": encoder, "decoder": decoder, "sha256": hashes}


def beside_files(pair: Pair) -> dict[str, Any]:
    """Returns what decides the numbers of a pair besides its files: precision, preprocessing, changes in memory."""
    return {part: values for part, values in models_identity(pair).items() if part != "sha256"}


def vocabulary_identity(vocabulary: Vocabulary | None) -> str:
    """Returns the SHA-256 of a vocabulary: its names and tensors."""
    names = () if vocabulary is None else vocabulary.names
    fields = sorted(getattr(vocabulary, "__dict__", {}).items())
    tensors = [f"{name}={tensor_identity(value)}" for name, value in fields if isinstance(value, Tensor)]
    return hashlib.sha256("\0".join([*names, *tensors]).encode()).hexdigest()


def tensor_identity(tensor: Tensor) -> str:
    """Returns the SHA-256 of a tensor's numbers in float32."""
    return hashlib.sha256(tensor.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()


def weights_are_files(hashes: Mapping[str, str], part: str) -> bool:
    """True if the weights of a part of a pair come from files with known hashes."""
    return any(name.startswith(f"{part}/") and name.endswith(".safetensors") for name in hashes)


def attention_of(encoder: Encoder) -> str:
    """Returns the implementation of attention of an encoder's model."""
    model = getattr(encoder, "model", None)
    chosen = getattr(getattr(model, "config", None), "_attn_implementation", None)
    if chosen is None and isinstance(model, nn.Module):
        fused = {bool(module.fused_attn) for module in model.modules() if hasattr(module, "fused_attn")}
        chosen = {frozenset({True}): "fused", frozenset({False}): "eager"}.get(frozenset(fused))
    return str(chosen or "its own")


def _named(part: PartProvenance | None) -> dict[str, Any]:
    entry = {} if part is None else part.to_json()
    return {key: entry[key] for key in ("family", "dtype", "preprocessing") if key in entry}


def encoder_identity(encoder: Encoder) -> dict[str, Any]:
    """Returns what decides an encoder's numbers besides its weights: precision, preprocessing, attention."""
    processor = getattr(encoder, "processor", None)
    return {
        "dtype": str(encoder.dtype).removeprefix("torch."),  # as it is now: a model in memory may have been converted
        "preprocessing": type(processor).__name__,
        "processor": _settings_hash(encoder, processor),
        "attention": attention_of(encoder),
        # Named only where it was chosen, so that other runs keep their identity.
        **({} if getattr(encoder, "shape", None) is None else {"shape": list(encoder.spec.image_size)}),
    }


_INDECISIVE = ("_type", "_class", "_version", "auto_map", "_commit_hash", "name_or_path", "device", "return_tensors")
"""Suffixes of settings that describe the origin of a processor, not its effect."""


def _settings_hash(encoder: Encoder, processor: Any) -> str:
    """Hashes the effect of preprocessing, independent of its origin."""
    to_dict = getattr(processor, "to_dict", None)
    if callable(to_dict):
        settings = cast(dict[str, Any], to_dict()).items()
        # An unset setting decides nothing: later versions of the library have more of them.
        text = repr(sorted((key, str(value)) for key, value in settings if _decides(key, value)))
    else:
        text = re.sub(r" at 0x[0-9a-f]+", "", repr(processor)) + _effect(encoder)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _effect(encoder: Encoder) -> str:
    """Hashes a marked picture after preprocessing: a function does not tell in its name what it does."""
    rows, columns = np.mgrid[0:64, 0:96]
    pixels = np.stack([2 * columns, 3 * rows, (rows * columns) % 251], axis=-1).astype(np.uint8)
    try:
        inputs = encoder.preprocess([Image.fromarray(pixels)])
    except ModelError:
        return ""  # transforms without a crop may take pictures of some shapes only
    return " ".join(f"{name} {tensor_identity(tensor)}" for name, tensor in sorted(inputs.items()))


def _decides(key: str, value: Any) -> bool:
    return value is not None and not key.endswith(_INDECISIVE)
