"""Vocabularies from files: that of a pair, and those of users."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from steerlens.encoders import Encoder
from steerlens.errors import ModelError, UsageError
from steerlens.limits import read_file
from steerlens.storage import open_tensors, parse_json
from steerlens.vocabulary import ClassVocabulary, PrototypeVocabulary, TextVocabulary, Vocabulary
from steerlens.zoo.sources import card_of, is_folder
from steerlens.zoo.text import SENTENCE_SIZE, MappedText, direction_of, directions_of

if TYPE_CHECKING:
    from steerlens.zoo.pair import Pair

_OF_TEXTS = ("text_embeds", "prototypes")
"""Tensors of a vocabulary whose names have directions."""

_LEAST_NORM = 0.99
"""Norm of a direction, which is 1 up to rounding unless its embedding points nowhere."""

TEXT_MAP = "text_map.safetensors"
"""File of a map into the sentence encoder's space, in a pair's folder."""


def load_vocabulary(folder: Path, embedding_size: int) -> TextVocabulary | None:
    """Reads the vocabulary in a pair's folder, or returns None if there is none.

    Raises:
        ModelError: if its two files do not fit each other or the encoder.
    """
    if not (folder / "vocabulary.safetensors").is_file():
        return None
    vocabulary = _from_tensors(folder / "vocabulary.safetensors", embedding_size)
    if not isinstance(vocabulary, TextVocabulary):
        raise ModelError(f"the vocabulary in {folder} holds class weights, and no text_embeds.")
    return vocabulary


def load_text_map(folder: Path, embedding_size: int, vocabulary: TextVocabulary | None) -> MappedText | None:
    """Reads the map from image embeddings into the sentence encoder's space in a pair's folder; None if there is none.

    Raises:
        ModelError: if it is broken, or does not fit the encoder.
    """
    file = folder / TEXT_MAP
    if not file.is_file():
        return None
    try:
        tensors = {name: tensor.float() for name, tensor in load_tensors(read_file(file, "tensors_bytes")).items()}
        weight, mean = tensors["weight"], tensors["text_mean"]
    except (UsageError, SafetensorError, LookupError, ValueError) as error:
        raise ModelError(f"the text map {file} cannot be read: {str(error).rstrip('.')}.") from error
    whole = weight.shape == (SENTENCE_SIZE, embedding_size) and mean.shape == (SENTENCE_SIZE,)
    if not whole or not bool(torch.isfinite(weight).all() and torch.isfinite(mean).all()):
        raise ModelError(f"the text map {file} does not fit embeddings of size {embedding_size}, or is not finite.")
    return MappedText(weight, mean, vocabulary)


def class_vocabulary(encoder: Encoder) -> ClassVocabulary | None:
    """Returns the classes of an encoder with a classifier, or None without one."""
    try:
        return cast(Any, encoder).class_vocabulary() if hasattr(encoder, "class_vocabulary") else None
    except UsageError:
        return None


def read_vocabulary(path: str | Path, pair: "Pair") -> Vocabulary:
    """Reads a user's vocabulary.

    It is a text file with one text per line; or names and tensors side by side (`NAME.json`, `NAME.safetensors`, or a
    folder with both, called `vocabulary`), where the tensors are text embeddings, `text_embeds` (V,E) and perhaps
    `text_mean` (E,); mean embeddings of pictures of each name, `prototypes` (V,E), and of all pictures, `mean` (E,),
    and perhaps `precision` (E,E), see `PrototypeVocabulary`; or a linear classifier, `weight` (V,E) and perhaps
    `bias` (V,).

    Args:
        path: the file or folder.
        pair: the pair of the embedding space; its text encoder embeds the texts of a text file.

    Raises:
        UsageError: if there is no such file, it holds no text, or the pair cannot embed its texts.
        ModelError: if the tensors are broken, or do not fit the names or the encoder.
    """
    path = Path(path)
    file = _tensor_file(path)
    if file is not None:
        return _from_tensors(file, pair.encoder.spec.embedding_size)
    texts = read_texts(path)
    own = pair.vocabulary if isinstance(pair.vocabulary, TextVocabulary) else None
    return TextVocabulary(texts, directions_of(texts, own, pair.texts))


def check_vocabulary_files(path: str | Path) -> None:
    """Checks that the files of a user's vocabulary can be read, without a model.

    Raises:
        UsageError: if there is no such file, it holds no text, or half of it is missing.
    """
    if _tensor_file(Path(path)) is None:
        read_texts(Path(path))


def check_text(source: str | Path, text: str) -> None:
    """Checks without a model that a pair knows a text; passes if its vocabulary is not in a folder on this machine.

    Args:
        source: name of a card, or a folder.
        text: the text.

    Raises:
        UsageError: if the pair does not know the text; the message suggests similar texts.
    """
    known = None if is_folder(source) else card_of(source)
    folder = Path(source) if is_folder(source) else known and (known.bundled_folder or known.folder)
    file = None if folder is None else folder / "vocabulary.safetensors"
    if folder is None or file is None or not file.is_file() or (folder / "text_encoder").is_dir():
        return
    try:
        with open_tensors(file) as tensors:
            names = [name for name in _OF_TEXTS if name in set(tensors.keys())]
            size = tensors.get_slice(names[0]).get_shape()[-1]
    except (OSError, SafetensorError, IndexError):
        return  # opening the pair says what is wrong
    vocabulary = load_vocabulary(folder, size)
    direction_of(text, vocabulary, load_text_map(folder, size, vocabulary))


def _tensor_file(path: Path) -> Path | None:
    """Returns the file of a vocabulary's tensors, or None for a text file.

    Raises:
        UsageError: if the names or the tensors are missing.
    """
    if not path.is_dir() and path.suffix.lower() not in (".safetensors", ".json"):
        return None
    file = path / "vocabulary.safetensors" if path.is_dir() else path.with_suffix(".safetensors")
    for needed in (file, file.with_suffix(".json")):
        if not needed.is_file():
            raise UsageError(f"the vocabulary {path} is not complete: there is no {needed}.")
    return file


def read_texts(path: Path) -> tuple[str, ...]:
    """Reads the texts of a file, one per line, without blank lines and duplicates.

    Raises:
        UsageError: if the file does not exist, is not UTF-8, or contains no text.
    """
    try:
        lines = read_file(path, "list_bytes").decode("utf-8-sig").splitlines()
    except UsageError as error:
        raise UsageError(f"the vocabulary cannot be read: {error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"the vocabulary {path} is no text in UTF-8, one text a line.") from None
    texts = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not texts:
        raise UsageError(f"the vocabulary {path} holds no text; write one a line.")
    return texts


def _from_tensors(file: Path, embedding_size: int) -> Vocabulary:
    try:
        entries = _list_of(parse_json(read_file(file.with_suffix(".json"), "list_bytes")))
        names = tuple(str(entry["name"] if isinstance(entry, dict) else entry) for entry in entries)
        tensors = {name: tensor.float() for name, tensor in load_tensors(read_file(file, "tensors_bytes")).items()}
    except (UsageError, SafetensorError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ModelError(f"the vocabulary {file} cannot be read: {str(error).rstrip('.')}.") from error
    kinds: dict[str, tuple[Any, str, int]] = {
        "text_embeds": (TextVocabulary, "text_mean", embedding_size),
        "prototypes": (PrototypeVocabulary, "mean", embedding_size),
        "weight": (ClassVocabulary, "bias", len(names)),
    }
    given = next((name for name in kinds if name in tensors), None)
    if given is None:
        raise ModelError(f"the vocabulary {file} holds neither text_embeds nor prototypes nor weight.")
    kind, beside, length = kinds[given]
    _fits(file, tensors[given], (len(names), embedding_size))
    if beside in tensors:
        _fits(file, tensors[beside], (length,))
    extra = [tensors["precision"]] if given == "prototypes" and "precision" in tensors else []
    for tensor in extra:
        _fits(file, tensor, (embedding_size, embedding_size))
    vocabulary = kind(names, tensors[given], tensors.get(beside), *extra)
    if isinstance(vocabulary, TextVocabulary):
        _point_somewhere(file, vocabulary)
    return vocabulary


def _list_of(content: Any) -> list[Any]:
    """Returns a list of names, or of tables with a name.

    Raises:
        ValueError: if it is none.
    """
    entries = cast(list[Any], content) if isinstance(content, list) else None
    if entries is None or not all(isinstance(entry, str | int | float | dict) for entry in entries):
        raise ValueError("its JSON is no list of names")
    return entries


def _point_somewhere(file: Path, vocabulary: TextVocabulary) -> None:
    """Checks that every name has a direction; similarities with a zero vector would all be 0.

    Raises:
        ModelError: if one has none.
    """
    lost = (vocabulary.directions().norm(dim=-1) < _LEAST_NORM).nonzero().flatten().tolist()
    if lost:
        raise ModelError(
            f"the vocabulary {file}: {vocabulary.names[lost[0]]!r} has no direction"
            f"{f' (nor do {len(lost) - 1} more)' if len(lost) > 1 else ''}: its embedding is zero, equal to the mean, "
            "or too large or small for single precision."
        )


def _fits(file: Path, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape or not bool(torch.isfinite(tensor).all()):
        problem = f"has shape {tuple(tensor.shape)}" if tuple(tensor.shape) != shape else "is not finite"
        raise ModelError(f"the vocabulary {file}: a tensor {problem}; names and encoder ask for {shape}, all finite.")
