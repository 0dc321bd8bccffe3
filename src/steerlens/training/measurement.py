"""Measured figures of a pair, and the pair opened for evaluation as by every other command."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steerlens.decoders import DecodeOptions
from steerlens.zoo import card


def default_options() -> DecodeOptions:
    """Default options for decoding a pair trained here: those of the bundled pair's card."""
    return card("emoji").defaults.options()


@dataclass(frozen=True)
class Measurement:
    """Measured number with its threshold.

    Attributes:
        name: name of the quantity.
        value: the number.
        bar: threshold that it should reach; None if it is only reported.
        percent: True to print it as a percentage.
        note: method of the measurement, in words.
    """

    name: str
    value: float
    bar: float | None = None
    percent: bool = True
    note: str = ""

    @property
    def met(self) -> bool:
        """True if the threshold is reached."""
        return self.bar is None or self.value >= self.bar

    def cells(self) -> tuple[str, str, str, str, str]:
        """Name, value, threshold, verdict and note, as text."""
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
        """True if every threshold is reached."""
        return all(figure.met for figure in self.figures)

    def table(self) -> str:
        """Formats the figures as a markdown table."""
        rows = [("what", "value", "at least", "", "how"), ("---",) * 5, *(figure.cells() for figure in self.figures)]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)

    def to_dict(self) -> dict[str, Any]:
        """Converts the figures to JSON values."""
        return {"passed": self.passed, "figures": [asdict(figure) for figure in self.figures]}


@dataclass(frozen=True)
class MeasuredPair:
    """Exported pair, opened for evaluation.

    Attributes:
        encoder: the wrapped encoder, in float32.
        decoder: the wrapped decoder, in the precision that suits the device.
        names: float (C,E), mean-centred, unit-norm directions of the texts that the encoder was trained with; (0,E) for
            a pair without them.
        loaded: the pair itself.
    """

    encoder: Any
    decoder: Any
    names: Tensor
    loaded: Any = None

    def embed(self, pictures: Tensor, batch: int = 128) -> Tensor:
        """Embeds pictures (N,3,64,64) in [0,1]; float (N,E)."""
        parts = [self.encoder.embed(self.encoder.preprocess_tensor(chunk)) for chunk in pictures.split(batch)]
        return torch.cat(parts).float()

    def decode(self, embeds: Tensor, seed: int = 0) -> Tensor:
        """Decodes embeddings with a seed per picture; float (N,3,64,64) in [0,1]."""
        from steerlens.conditioning import Conditioning
        from steerlens.decoders import decode

        conditioning = Conditioning("image_embedding", embeds)
        options = replace(default_options(), size=self.decoder.spec.defaults.size)
        return decode(self.decoder, conditioning, list(range(seed, seed + len(embeds))), options).to(embeds.device)


def open_pair(folder: Path, device: str) -> MeasuredPair:
    """Opens the folder of a pair as the rest of the package does."""
    from steerlens.loading import load
    from steerlens.vocabulary import PrototypeVocabulary, TextVocabulary

    loaded = load(folder, device=device)
    names = torch.zeros(0, loaded.encoder.spec.embedding_size)
    words = loaded.vocabulary
    if isinstance(words, TextVocabulary) and not isinstance(words, PrototypeVocabulary):
        names = words.directions()
    return MeasuredPair(loaded.encoder, loaded.decoder, names.to(device), loaded)
