"""Directions of texts, and random vocabularies as controls.

Any large set of directions explains part of any direction. A random vocabulary has as many directions as the real one,
drawn from a normal distribution with the mean and the covariance of its directions, so it spans the same space equally
densely, but its directions mean nothing. Isotropic directions would be an easier control to beat.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from steerlens.errors import ModelError, UsageError
from steerlens.vocabulary import ClassVocabulary, TextVocabulary, Vocabulary

_LEVEL = 0.95
"""Share of random vocabularies that a decomposition must beat."""


def text_directions(vocabulary: Vocabulary) -> Float[Tensor, "V E"]:
    """Unit directions of a vocabulary's texts, in float64 on the CPU.

    Those of a classifier are the weights of its classes without their mean, which shifts all logits alike.

    Raises:
        UsageError: if the vocabulary has no directions in the embedding space.
        ModelError: if a direction is not finite.
    """
    if isinstance(vocabulary, TextVocabulary):
        directions = vocabulary.directions()
    elif isinstance(vocabulary, ClassVocabulary):
        directions = vocabulary.weight - vocabulary.weight.float().mean(dim=0)
    else:
        raise UsageError(
            f"a {type(vocabulary).__name__} has no directions in the embedding space, which decompositions into texts "
            "need; name components by the nearest texts instead."
        )
    if not bool(directions.isfinite().all()):
        raise ModelError("the vocabulary has directions that are not finite.")
    return normalize(directions.detach().double().cpu(), dim=-1)


def random_vocabularies(directions: Float[Tensor, "V E"], count: int, seed: int) -> Iterator[Float[Tensor, "V E"]]:
    """Yields random unit directions with the mean and covariance of a vocabulary's, as many as it has."""
    V, E = directions.shape
    mean = directions.mean(dim=0)
    centred = directions - mean
    values, axes = torch.linalg.eigh(centred.T @ centred / V)
    spread = axes * values.clamp_min(0).sqrt()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield normalize(mean + torch.randn(V, E, generator=generator, dtype=directions.dtype) @ spread.T, dim=-1)


@dataclass(frozen=True)
class Control:
    """Share of variance that random vocabularies explain: text by text, and the level that 95 % stay below."""

    mean: tuple[float, ...]
    level: float


def control_of(explained: Float[Tensor, "C k"]) -> Control:
    """Summarises the cumulative shares that C random vocabularies explain; zeros without any."""
    if not len(explained):
        return Control((), 0.0)
    return Control(tuple(explained.mean(dim=0).tolist()), float(torch.quantile(explained[:, -1], _LEVEL)))


def check_count(k: int, controls: int) -> None:
    """Checks the number of texts and of random vocabularies.

    Raises:
        UsageError: if there is no text, or a negative number of controls.
    """
    if k < 1:
        raise UsageError(f"a decomposition needs at least one text, not {k}.")
    if controls < 0:
        raise UsageError(f"the number of random vocabularies cannot be negative; got {controls}.")
