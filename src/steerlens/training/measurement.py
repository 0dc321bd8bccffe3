"""Measured figures of a pair, and the pair opened for measuring as every other command opens it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerlens.decoders.base import DecodeOptions
from steerlens.zoo import card


def meant() -> DecodeOptions:
    """How a pair made here is meant to be decoded: the defaults of the bundled one's card."""
    return card("emoji").defaults.options()


@dataclass(frozen=True)
class Measurement:
    """One measured number.

    Attributes:
        name: what was measured.
        value: the number.
        bar: the least it should be, or None if it is only reported.
        percent: whether to print it as a percentage.
        note: how it was measured.
    """

    name: str
    value: float
    bar: float | None = None
    percent: bool = True
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the bar is reached."""
        return self.bar is None or self.value >= self.bar

    def cells(self) -> tuple[str, str, str, str, str]:
        """Name, value, bar, verdict and note, as text."""
        shape = (lambda value: f"{value:.1%}") if self.percent else (lambda value: f"{value:.3g}")
        bar = "" if self.bar is None else shape(self.bar)
        verdict = "reported" if self.bar is None else "met" if self.met else "MISSED"
        return self.name, shape(self.value), bar, verdict, self.note


@dataclass(frozen=True)
class Evaluation:
    """All figures of a pair."""

    figures: tuple[Measurement, ...]

    @property
    def passed(self) -> bool:
        """Whether every bar is met."""
        return all(figure.met for figure in self.figures)

    def table(self) -> str:
        """A markdown table."""
        rows = [("what", "value", "at least", "", "how"), ("---",) * 5, *(figure.cells() for figure in self.figures)]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)

    def to_dict(self) -> dict[str, Any]:
        """For json."""
        return {"passed": self.passed, "figures": [asdict(figure) for figure in self.figures]}


@dataclass(frozen=True)
class MeasuredPair:
    """An exported pair, opened.

    Attributes:
        encoder: the wrapped encoder, in float32.
        decoder: the wrapped decoder, in the precision that suits the device.
        names: float (C,E), mean-centred, unit-norm directions of the vocabulary; (0,E) for a pair without one.
    """

    encoder: Any
    decoder: Any
    names: Tensor

    def embed(self, pictures: Tensor, batch: int = 128) -> Tensor:
        """float (N,E) of pictures (N,3,64,64) in [0,1]."""
        parts = [self.encoder.embed(self.encoder.preprocess_tensor(chunk)) for chunk in pictures.split(batch)]
        return torch.cat(parts).float()

    def decode(self, embeds: Tensor, seed: int = 0) -> Tensor:
        """float (N,3,64,64) in [0,1], one seed a picture."""
        from steerlens.conditioning import Conditioning
        from steerlens.decoders.base import decode

        conditioning = Conditioning("image_embedding", embeds)
        options = replace(meant(), size=self.decoder.spec.defaults.size)
        return decode(self.decoder, conditioning, list(range(seed, seed + len(embeds))), options).to(embeds.device)


def open_pair(folder: Path, device: str) -> MeasuredPair:
    """Open the folder of a pair as the rest of the package does."""
    from steerlens.loading import load
    from steerlens.vocabulary import TextVocabulary

    loaded = load(folder, device=device)
    names = torch.zeros(0, loaded.encoder.spec.embedding_size)
    if isinstance(loaded.vocabulary, TextVocabulary):
        names = loaded.vocabulary.directions()
    return MeasuredPair(loaded.encoder, loaded.decoder, names.to(device))
