"""Vocabularies: names and their directions in embedding space, to label representations."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.errors import ModelError, UsageError


class Vocabulary(Protocol):
    """Names, each with a score for any image embedding; the higher, the better the fit."""

    @property
    def names(self) -> tuple[str, ...]:
        """The labels."""
        ...

    def scores(self, embeddings: Float[Tensor, "*N E"]) -> Float[Tensor, "*N V"]:
        """Scores every label for every embedding."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class TextVocabulary:
    """Text embeddings in the encoder's own embedding space; scores are cosine similarities in [-1,1].

    Attributes:
        names: the V texts.
        embeddings: their text embeddings.
        mean: vector to subtract from text embeddings before comparison, or None. Sentence embeddings share a large
            common direction; the vocabulary of an encoder's training says whether it was removed.
    """

    names: tuple[str, ...]
    embeddings: Float[Tensor, "V E"]
    mean: Float[Tensor, "E"] | None = None

    def __post_init__(self) -> None:
        if len(self.names) != len(self.embeddings):
            raise ModelError(f"a vocabulary of {len(self.names)} names has {len(self.embeddings)} text embeddings.")

    def __repr__(self) -> str:
        return f"TextVocabulary({_some(self.names)}; embedding size {self.embeddings.shape[-1]})"

    def directions(self) -> Float[Tensor, "V E"]:
        """Text embeddings for comparison: the mean subtracted, unit norm."""
        centred = self.embeddings if self.mean is None else self.embeddings - self.mean
        return torch.nn.functional.normalize(centred.float(), dim=-1)

    def scores(self, embeddings: Float[Tensor, "*N E"]) -> Float[Tensor, "*N V"]:
        """Computes the cosine similarity of every text with every image embedding."""
        unit = torch.nn.functional.normalize(embeddings.float(), dim=-1)
        return unit @ self.directions().to(unit.device).T

    def index(self, name: str) -> int | None:
        """Returns the index of a text, ignoring case, or None if the vocabulary does not contain it."""
        return self._places.get(name.lower())

    @cached_property
    def _places(self) -> dict[str, int]:
        # Backwards, so that the first of two names that differ only in case wins.
        return {name.lower(): place for place, name in reversed(list(enumerate(self.names)))}

    def direction(self, name: str) -> Float[Tensor, "E"]:
        """Returns the direction of a text of the vocabulary, ignoring case.

        Raises:
            UsageError: if the vocabulary does not contain it; the message names similar texts.
        """
        import difflib

        place = self.index(name)
        if place is not None:
            return self.directions()[place]
        holding = [known for known in self.names if name.lower() in known.lower()][:5]
        close = holding or difflib.get_close_matches(name, self.names, n=5, cutoff=0.4)
        hint = f"; close to it: {', '.join(close)}" if close else ""
        raise UsageError(f"the vocabulary of {len(self.names)} texts does not hold {name!r}{hint}.")


@dataclass(frozen=True, eq=False, repr=False)
class PrototypeVocabulary(TextVocabulary):
    """Names of things, each with the mean embedding of pictures of it, for an encoder that was not trained with texts.

    Embeddings of such an encoder share a large mean m, which says nothing of the picture. A name's direction is that of
    a linear discriminant, without its component along m:

        d = (I - m mᵀ / |m|²) S⁻¹ (p - m), of unit norm,

    where S is the scatter of pictures around the prototype p of their name: ways in which pictures of one thing differ,
    such as style and background, count less. Then cos(e, d) ranks names alike whether or not m is subtracted from e.

    Attributes:
        names: the V names.
        embeddings: their prototypes.
        mean: mean embedding m of pictures.
        precision: the inverse scatter, up to a factor; None for equal scatter everywhere.

    References: R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7, 1936.
    """

    precision: Float[Tensor, "E E"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mean is None:
            raise ModelError("a vocabulary of prototypes needs the mean embedding of pictures.")

    def directions(self) -> Float[Tensor, "V E"]:
        """Directions of the names, unit norm."""
        mean = torch.zeros(self.embeddings.shape[-1]) if self.mean is None else self.mean.float()
        centred = self.embeddings.float() - mean
        return across(centred if self.precision is None else centred @ self.precision.float(), mean)


def across(vectors: Float[Tensor, "V E"], mean: Float[Tensor, "E"]) -> Float[Tensor, "V E"]:
    """Removes the component of vectors along a mean; rows of unit norm."""
    axis = torch.nn.functional.normalize(mean, dim=0)
    return torch.nn.functional.normalize(vectors - (vectors @ axis)[:, None] * axis, dim=-1)


@dataclass(frozen=True, eq=False, repr=False)
class ClassVocabulary:
    """The classes of a linear classifier on the embedding; scores are its logits.

    Attributes:
        names: the V class names.
        weight: the classifier's weight.
        bias: its bias, or None.
    """

    names: tuple[str, ...]
    weight: Float[Tensor, "V E"]
    bias: Float[Tensor, "V"] | None = None

    def __post_init__(self) -> None:
        if len(self.names) != len(self.weight):
            raise ModelError(f"a classifier of {len(self.weight)} classes was given {len(self.names)} names.")

    @classmethod
    def of_classifier(cls, layer: nn.Linear, names: Iterable[str]) -> "ClassVocabulary":
        """Returns the classes of a linear layer.

        Raises:
            ModelError: if it has another number of classes than names.
        """
        bias = cast("Tensor | None", layer.bias)  # torch declares no None here
        return cls(tuple(names), layer.weight.detach(), None if bias is None else bias.detach())

    def __repr__(self) -> str:
        return f"ClassVocabulary({_some(self.names)}; embedding size {self.weight.shape[-1]})"

    def scores(self, embeddings: Float[Tensor, "*N E"]) -> Float[Tensor, "*N V"]:
        """Computes the logits of every class."""
        weight = self.weight.to(embeddings)
        return torch.nn.functional.linear(embeddings, weight, None if self.bias is None else self.bias.to(embeddings))


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(name[:30] for name in names[:3])
    return f"{len(names)} names: {shown}{', ...' if len(names) > 3 else ''}"
