"""Result of a sparse text decomposition: texts, the variance they explain, and the same figure of random texts."""

from dataclasses import dataclass
from typing import Literal

NamesMethod = Literal["nearest", "textspan", "omp"]
"""How components are named: by the nearest texts, by TextSpan, or by orthogonal matching pursuit."""


@dataclass(frozen=True)
class NamedText:
    """One text of a decomposition.

    Attributes:
        text: the text.
        weight: for `omp`, the signed coefficient of the text's unit direction, relative to the length of the decomposed
            direction; a negative weight says that the direction points away from the text. For `textspan`, the share of
            variance that this text adds, in [0,1].
        explained: share of variance that this text and those before it explain together, in [0,1].
    """

    text: str
    weight: float
    explained: float


@dataclass(frozen=True)
class TextDecomposition:
    """Texts that together explain a direction or a set of writes, in the order they were chosen.

    Attributes:
        method: `omp` or `textspan`.
        texts: the chosen texts; fewer than requested if they already explain everything.
        control: mean share of variance that as many texts of a random vocabulary explain, text by text, in [0,1].
        control_level: 95th percentile of the share that all texts of a random vocabulary explain.
    """

    method: NamesMethod
    texts: tuple[NamedText, ...]
    control: tuple[float, ...]
    control_level: float

    @property
    def explained(self) -> float:
        """Share of variance that all texts explain, in [0,1]; 0 without texts."""
        return self.texts[-1].explained if self.texts else 0.0

    @property
    def beats_control(self) -> bool:
        """True if the texts explain more than those of 95 % of random vocabularies."""
        return self.explained > self.control_level

    def __str__(self) -> str:
        signs = ("−" if text.weight < 0 else "" for text in self.texts)
        named = ", ".join(f"{sign}{text.text}" for sign, text in zip(signs, self.texts, strict=True)) or "no text"
        control = self.control[-1] if self.control else 0.0
        return f"{named} (explain {self.explained:.0%}; random texts {control:.0%})"
