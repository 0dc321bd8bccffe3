"""Provenance of a pair: origin and hashes of its weights, recorded in a run's manifest."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steerlens._version import __version__
from steerlens.decoders import Decoder
from steerlens.encoders import OPEN_CLIP_FILES, Encoder
from steerlens.storage import file_hash, read_json
from steerlens.zoo.cards import Repository


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide the numbers."""
    names = ("steerlens", "torch", "transformers", "diffusers", "safetensors", "numpy", "pillow")
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = __version__ if name == "steerlens" else "unknown"
    return versions


Place = Repository | Path | str | None
"""Origin of weights: the hub, a folder, another source that finds them again, or None for an object in memory."""


@dataclass(frozen=True)
class PartProvenance:
    """Identity of an encoder or decoder.

    Attributes:
        name: its name in reports.
        family: name of its adapter.
        dtype: precision of its weights, such as `float32`.
        place: origin of its weights.
        preprocessing: class of an encoder's image processor; None for a decoder.
    """

    name: str
    family: str
    dtype: str
    place: Place
    preprocessing: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the entry of a manifest."""
        preprocessing = {} if self.preprocessing is None else {"preprocessing": self.preprocessing}
        return {"name": self.name, "family": self.family, "dtype": self.dtype, **preprocessing, **_place(self.place)}


@dataclass(frozen=True)
class Provenance:
    """Origin and identity of a pair's weights; empty for a pair assembled by hand.

    Attributes:
        name: the card's name, or the folder.
        encoder: identity of the encoder.
        decoder: identity of the decoder.
        sha256: hash of every file that decides the numbers, by component and file name (`file_hashes`).
        device: device of the models.
        versions: versions of the libraries that decide the numbers (`library_versions`).
        domain: pictures that the decoder was trained on, in words; empty if unknown.
    """

    name: str = ""
    encoder: PartProvenance | None = None
    decoder: PartProvenance | None = None
    sha256: Mapping[str, str] = field(default_factory=dict[str, str])
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    domain: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the provenance for a manifest."""
        if self == Provenance():
            return {}
        return {
            "name": self.name,
            "encoder": {} if self.encoder is None else self.encoder.to_json(),
            "decoder": {} if self.decoder is None else self.decoder.to_json(),
            "sha256": dict(self.sha256),
            "device": self.device,
            "versions": dict(self.versions),
            **({"domain": self.domain} if self.domain else {}),
        }


def encoder_provenance(encoder: Encoder, place: Place) -> PartProvenance:
    """Builds the identity of an encoder from the origin of its weights."""
    spec, processor = encoder.spec, getattr(encoder, "processor", None)
    dtype = str(encoder.dtype).removeprefix("torch.")
    return PartProvenance(spec.name, spec.family, dtype, place, type(processor).__name__)


def decoder_provenance(decoder: Decoder, place: Place) -> PartProvenance:
    """Builds the identity of a decoder from the origin of its weights."""
    dtype = str(getattr(decoder, "dtype", "unknown")).removeprefix("torch.")
    if stored := getattr(decoder, "stored_as", ""):
        dtype = f"{dtype}, stored as {stored}"
    return PartProvenance(decoder.spec.name, decoder.spec.family, dtype, place)


def _place(place: Place) -> dict[str, Any]:
    if isinstance(place, Repository):
        return {"repository": place.repository, "revision": place.revision}
    if isinstance(place, Path):
        return {"folder": str(place)}
    return {"source": "given as an object" if place is None else place}


def trained_weights(folder: Path) -> dict[str, str]:
    """Reads the SHA-256 of the encoder's weights that a pair's decoder was trained with, by file name, if recorded."""
    path = folder / "manifest.json"
    encoder: Any = read_json(path, "manifest").get("encoder") if path.is_file() else None
    hashes: Any = encoder.get("sha256") if isinstance(encoder, Mapping) else None
    return {str(name): str(value) for name, value in hashes.items()} if isinstance(hashes, Mapping) else {}


def _configs_of(part: str) -> tuple[str, ...]:
    if part == "image_processor":
        return ("preprocessor_config.json", "processor_config.json")
    # A repository may contain the same weights for two libraries, each with its own config.
    return ("scheduler_config.json",) if part.endswith("scheduler") else ("config.json", *OPEN_CLIP_FILES[:1])


def file_hashes(folders: Mapping[str, Path]) -> dict[str, str]:
    """Computes the SHA-256 of every file that decides the numbers, weights and configs, by component and file name.

    Args:
        folders: folder of each component; or a single file, by the name `component/file`.
    """
    hashes: dict[str, str] = {}
    for part, folder in folders.items():
        if folder.is_file():
            hashes[part] = file_hash(folder)
            continue
        bare = part == "image_processor" or part.endswith("scheduler")
        weights = [] if bare else sorted(folder.glob("*.safetensors"))
        configs = (folder / name for name in _configs_of(part))
        hashes |= {f"{part}/{path.name}": file_hash(path) for path in (*weights, *configs) if path.is_file()}
    return hashes
