"""Declaration of a decoder family: the layout of its folders and the class of each part.

The module that a family's entry point names defines `FAMILIES`, a mapping from registered names to `Family`.
Declarations import neither torch nor diffusers, so that listing models and locating their files is quick.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from steerlens.errors import UsageError
from steerlens.limits import read_file
from steerlens.storage import parse_json

Library = Literal["diffusers", "transformers", "scheduler", "tokenizer", "processor"]
"""The library whose files a folder contains."""

_FILES: Mapping[Library, tuple[str, ...]] = {
    "diffusers": ("config.json", "diffusion_pytorch_model.safetensors"),
    "transformers": ("config.json", "model.safetensors"),
    "scheduler": ("scheduler_config.json",),
    "tokenizer": ("*",),
    "processor": ("preprocessor_config.json",),
}

WHOLE = "."
"""The part of a single model, which is the folder itself."""


@dataclass(frozen=True)
class FolderPart:
    """One folder within a saved decoder.

    Attributes:
        library: the library whose files it contains.
        argument: argument of the adapter's constructor for the loaded part, or for the config of a scheduler; empty for
            a part that is not kept, such as a text encoder.
        kind: class of the part, a name of diffusers or `module:name`; empty for a scheduler's config.
        precision: `given` for that of the decoder; `float32` always; `upcast` for float32 instead of float16 if the
            part's config says `force_upcast`; `bfloat16` for that instead of float16, whose range is too small.
        shards: number of files that the hub keeps its weights in; 1 for a single file without an index.
    """

    library: Library
    argument: str = ""
    kind: str = ""
    precision: Literal["given", "float32", "upcast", "bfloat16"] = "given"
    shards: int = 1

    @property
    def files(self) -> tuple[str, ...]:
        """Files of the part on the hub, relative to its folder."""
        if self.shards == 1:
            return _FILES[self.library]
        config, whole = _FILES[self.library]
        stem = whole.removesuffix(".safetensors")
        numbered = (f"{stem}-{number:05}-of-{self.shards:05}.safetensors" for number in range(1, self.shards + 1))
        return (config, f"{whole}.index.json", *numbered)


def _always(folder: Path, weights: Path | None) -> bool:
    return True


def _buildable() -> None:
    return None


@dataclass(frozen=True)
class Family:
    """Layout of a family's folders.

    Attributes:
        pipeline: class that `model_index.json` names, or `config.json` for a single model.
        parts: parts of the decoder, by folder; only `WHOLE` for a single model.
        encoder: parts of the image encoder, by folder; empty if it is part of the decoder's single model.
        text_files: files of a text tower beside the image encoder, whose texts name directions of the embedding space.
        recognises: decides whether a folder of this pipeline (and an optional file of extra weights) is of this family,
            for pipelines that several families share.
        extra_weights: returns the file of an adapter's weights in the decoder's folder, which go into the network.
        unbuildable: returns a known reason why the installed libraries cannot build it, or None.
    """

    pipeline: str
    parts: Mapping[str, FolderPart]
    encoder: Mapping[str, Library]
    text_files: tuple[str, ...] = ()
    recognises: Callable[[Path, Path | None], bool] = _always
    extra_weights: Callable[[Path], Path] | None = None
    unbuildable: Callable[[], str | None] = _buildable

    @property
    def joint(self) -> bool:
        """True if encoder and decoder are one model in one folder."""
        return set(self.parts) == {WHOLE} and not self.encoder

    @property
    def decoder_files(self) -> tuple[str, ...]:
        """Files of the decoder on the hub, relative to its folder."""
        if WHOLE in self.parts:
            return self.parts[WHOLE].files
        return ("model_index.json", *(f"{name}/{file}" for name, part in self.parts.items() for file in part.files))

    @property
    def encoder_files(self) -> tuple[str, ...]:
        """Files of the encoder on the hub, relative to its folder."""
        return tuple(f"{folder}/{file}" for folder, library in self.encoder.items() for file in _FILES[library])


def pipeline_of(folder: Path) -> str | None:
    """Reads the class that a folder names, or None if it names none."""
    for name in ("model_index.json", "config.json"):
        content = _json(folder / name)
        if isinstance(content.get("_class_name"), str):
            return content["_class_name"]
    return None


def configured(folder: Path, key: str) -> Any:
    """Reads a value of a folder's `config.json`, or None if there is none."""
    return _json(folder / "config.json").get(key)


def _json(file: Path) -> Mapping[str, Any]:
    try:
        content: Any = parse_json(read_file(file, "config_bytes"))
    except (UsageError, ValueError, RecursionError):
        return {}
    return cast(Mapping[str, Any], content) if isinstance(content, dict) else {}


SCHEDULER = FolderPart("scheduler", "scheduler_config")
UNET = FolderPart("diffusers", "unet", "UNet2DConditionModel")
VAE = FolderPart("diffusers", "vae", "AutoencoderKL")
MOVQ = FolderPart("diffusers", "movq", "VQModel")

TEXT: Mapping[str, FolderPart] = {"text_encoder": FolderPart("transformers"), "tokenizer": FolderPart("tokenizer")}
"""Parts that encode the empty text once, when a decoder is loaded."""

ENCODER_IN_PRIOR: Mapping[str, Library] = {"image_encoder": "transformers", "image_processor": "processor"}
"""The encoder of a pair whose first repository is a prior."""

ENCODER_IN_PIPELINE: Mapping[str, Library] = {"image_encoder": "transformers", "feature_extractor": "processor"}
"""The encoder in a pipeline's own folder."""

ENCODER_ALONE: Mapping[str, Library] = {"image_encoder": "transformers"}
"""An encoder saved without its image processor."""
