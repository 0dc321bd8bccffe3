"""The text tower of a model that holds both towers: folders of CLIP, SigLIP and SigLIP 2, and of open_clip.

An image encoder opened from such a folder shares its space with the folder's own text tower, so any text has a
direction there. Tower and tokenizer are read with the first text; a tokenizer is then fetched if it is not there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.borders import native_errors
from steerlens.encoders import is_open_clip_folder
from steerlens.errors import ModelError
from steerlens.storage import check_library_folder, load_module, load_tensors, quiet_libraries, read_json
from steerlens.zoo.cards import Repository
from steerlens.zoo.encoder_locating import LocatedEncoder, inner_folder
from steerlens.zoo.hub import snapshot
from steerlens.zoo.text import TextSource

_BATCH = 64

_WHOLES = ("CLIPModel", "SiglipModel", "Siglip2Model")
"""Classes of transformers with two towers of one space."""

_TOKENIZERS = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
"""Files of which a tokenizer has at least one."""

_FETCHED = ("tokenizer*", "special_tokens_map.json", "vocab.json", "merges.txt", "spiece.model")


def tower_text(located: LocatedEncoder, embedding_size: int) -> TextSource | None:
    """Returns the text tower in an encoder's folder, or None if there is none of the same space.

    Args:
        located: the located encoder.
        embedding_size: E of the opened encoder; a tower of another size belongs to another readout.
    """
    folder = inner_folder(located.folder)
    fetch = _fetching(located, folder)
    if located.library == "open_clip" or is_open_clip_folder(folder):
        config: Mapping[str, Any] = read_json(folder / "open_clip_config.json", "text_encoder").get("model_cfg") or {}
        text: Mapping[str, Any] = config.get("text_cfg") or {}
        # Towers of transformers name a repository of their own for their config.
        if not text or text.get("hf_model_name") or config.get("embed_dim") != embedding_size:
            return None
        return OpenCLIPText(folder, fetch)
    config = read_json(folder / "config.json", "text_encoder") if (folder / "config.json").is_file() else {}
    kind = (config.get("architectures") or [""])[0]
    if kind not in _WHOLES:
        return None
    text = config.get("text_config") or {}
    size = (
        config.get("projection_dim", 512)
        if kind == "CLIPModel"
        else text.get("projection_size") or text.get("hidden_size", 768)
    )
    return TowerText(folder, kind, fetch) if size == embedding_size else None


def _fetching(located: LocatedEncoder, folder: Path) -> Callable[[], Path]:
    place = located.place

    def fetch() -> Path:
        if any((folder / name).is_file() for name in _TOKENIZERS) or not isinstance(place, Repository):
            return folder
        instead = "Give the folder of a local copy that holds the tokenizer too."
        return snapshot(place.repository, place.at, _FETCHED, local_files_only=False, instead=instead)

    return fetch


@dataclass(frozen=True)
class TowerText:
    """The text tower of a whole CLIP, SigLIP or SigLIP 2 of transformers.

    Attributes:
        folder: folder with config and weights.
        kind: class of the whole model.
        fetch: returns the folder of the tokenizer.
    """

    folder: Path
    kind: str
    fetch: Callable[[], Path]

    @cached_property
    def _native(self) -> tuple[Any, Any]:
        import transformers

        place = self.fetch()
        if not any((place / name).is_file() for name in _TOKENIZERS):
            # Without them transformers builds an empty tokenizer, and all texts would be equal.
            raise ModelError(f"tokenizer: {place} holds no vocabulary ({', '.join(_TOKENIZERS)}).")
        check_library_folder(place, "tokenizer")
        whole = getattr(transformers, self.kind)
        model = load_module(whole, self.folder, "text_encoder", dtype=torch.float32, device=torch.device("cpu"))
        with native_errors(f"tokenizer: {place} cannot be loaded"), quiet_libraries():
            options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            return model, transformers.AutoTokenizer.from_pretrained(place, **options)

    @torch.no_grad()
    def directions(self, texts: Sequence[str]) -> Float[Tensor, "V E"]:
        """Computes the text embeddings of the model's own space, of unit norm."""
        model, tokenizer = self._native
        clip, longest = self.kind == "CLIPModel", model.config.text_config.max_position_embeddings
        rows: list[Tensor] = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            batch = [text.lower() for text in batch] if self.kind == "Siglip2Model" else batch
            # SigLIP was trained on texts padded to full length, without a mask.
            padding = True if clip else "max_length"
            tokens = tokenizer(batch, padding=padding, truncation=True, max_length=longest, return_tensors="pt")
            given = {"input_ids": tokens.input_ids} | ({"attention_mask": tokens.attention_mask} if clip else {})
            with native_errors(f"{self.folder}: its text tower failed"):
                features = model.get_text_features(**given)
            rows.append(features if isinstance(features, Tensor) else features.pooler_output)
        return torch.nn.functional.normalize(torch.cat(rows).float(), dim=-1)


@dataclass(frozen=True)
class OpenCLIPText:
    """The text tower of a model of open_clip.

    Attributes:
        folder: folder with config and weights.
        fetch: returns the folder of the tokenizer, for models that bring one.
    """

    folder: Path
    fetch: Callable[[], Path]

    @cached_property
    def _native(self) -> tuple[Any, Any]:
        import open_clip  # pyright: ignore[reportMissingImports]

        config: Mapping[str, Any] = read_json(self.folder / "open_clip_config.json", "text_encoder")["model_cfg"]
        text: Mapping[str, Any] = config["text_cfg"]
        with native_errors(f"text_encoder: open_clip cannot build the text tower of {self.folder}"), quiet_libraries():
            quick = bool(config.get("quick_gelu"))
            tower: Any = open_clip.model._build_text_tower(
                config["embed_dim"], open_clip.model.CLIPTextCfg(**text), quick
            )
            weights = load_tensors(self.folder / "open_clip_model.safetensors")
            own = {name: tensor for name, tensor in weights.items() if not name.startswith("visual.")}
            # CLIP keeps its text tower at the top level, custom models below `text.`.
            own = {name.removeprefix("text."): tensor for name, tensor in own.items()}
            lacking, _ = tower.load_state_dict(own, strict=False)
            if [name for name in lacking if name != "attn_mask"]:
                raise ModelError(f"text_encoder: the weights in {self.folder} lack {sorted(lacking)[0]}.")
            tokenizer = self._tokenizer(open_clip, text)
        return tower.float().eval(), tokenizer

    def _tokenizer(self, library: Any, text: Mapping[str, Any]) -> Any:
        longest = text.get("context_length", 77)
        if not text.get("hf_tokenizer_name"):
            return library.SimpleTokenizer(context_length=longest, **(text.get("tokenizer_kwargs") or {}))
        place = self.fetch()
        check_library_folder(place, "tokenizer")
        return library.tokenizer.HFTokenizer(str(place), context_length=longest, **(text.get("tokenizer_kwargs") or {}))

    @torch.no_grad()
    def directions(self, texts: Sequence[str]) -> Float[Tensor, "V E"]:
        """Computes the text embeddings of the model's own space, of unit norm."""
        tower, tokenizer = self._native
        rows: list[Tensor] = []
        for start in range(0, len(texts), _BATCH):
            with native_errors(f"{self.folder}: its text tower failed"):
                rows.append(tower(tokenizer(list(texts[start : start + _BATCH]))))
        return torch.nn.functional.normalize(torch.cat(rows).float(), dim=-1)
