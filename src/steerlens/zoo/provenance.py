"""What a manifest says of a pair, so that the same weights can be found and recognised again."""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerlens._version import __version__
from steerlens.decoders.base import Decoder
from steerlens.encoders.base import Encoder
from steerlens.encoders.folders import OPEN_CLIP_FILES
from steerlens.storage.weights import file_hash
from steerlens.zoo.cards import Repository


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide what comes out."""
    names = ("steerlens", "torch", "transformers", "diffusers", "safetensors", "numpy", "pillow")
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = __version__ if name == "steerlens" else "unknown"
    return versions


def encoder_provenance(encoder: Encoder, source: Repository | Path | None) -> dict[str, Any]:
    """What identifies an encoder.

    Args:
        encoder: the encoder.
        source: where its weights came from; None for an object that was given as it is.
    """
    return {
        "name": encoder.spec.name,
        "family": encoder.spec.family,
        "dtype": str(encoder.dtype).removeprefix("torch."),
        "preprocessing": type(getattr(encoder, "processor", None)).__name__,
        **_source(source),
    }


def decoder_provenance(decoder: Decoder, source: Repository | Path | None) -> dict[str, Any]:
    """What identifies a decoder; arguments as in `encoder_provenance`."""
    return {
        "name": decoder.spec.name,
        "family": decoder.spec.family,
        "dtype": str(getattr(decoder, "dtype", "unknown")).removeprefix("torch."),
        **_source(source),
    }


def _source(source: Repository | Path | None) -> dict[str, Any]:
    if source is None:
        return {"source": "given as an object"}
    if isinstance(source, Path):
        return {"folder": str(source)}
    return {"repository": source.repository, "revision": source.revision}


def _configs_of(part: str) -> tuple[str, ...]:
    if part == "image_processor":
        return ("preprocessor_config.json",)
    # A repository may hold the same weights for two libraries, and each reads its own config.
    return ("scheduler_config.json",) if part.endswith("scheduler") else ("config.json", *OPEN_CLIP_FILES[:1])


def file_hashes(folders: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of every file that decides the numbers, weights and configs, by component and file name.

    Args:
        folders: of each component; or a single file by the name that it is to have, `component/file`.
    """
    found: dict[str, str] = {}
    for part, folder in folders.items():
        if folder.is_file():
            found[part] = file_hash(folder)
            continue
        bare = part == "image_processor" or part.endswith("scheduler")
        weights = [] if bare else sorted(folder.glob("*.safetensors"))
        configs = (folder / name for name in _configs_of(part))
        found |= {f"{part}/{path.name}": file_hash(path) for path in (*weights, *configs) if path.is_file()}
    return found
