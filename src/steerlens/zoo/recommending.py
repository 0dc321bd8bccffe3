"""Which preset for whom: one for each need, chosen and described by the numbers of the cards. Imports nothing heavy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from steerlens.zoo.cards import Card, cards

LAPTOP_GIGABYTES = 2.5
"""Largest download, in 10^9 bytes, of a preset for a laptop without GPU: in float32 its weights take as much memory."""


@dataclass(frozen=True)
class Recommendation:
    """A preset for a need.

    Attributes:
        need: what the user has and wants.
        name: name of the preset.
        reason: passes, size, domain and terms, from its card.
    """

    need: str
    name: str
    reason: str


def recommendations(known: Mapping[str, Card] | None = None) -> tuple[Recommendation, ...]:
    """Returns a preset for each need, leaving out needs that no preset meets.

    Args:
        known: the cards to choose from; by default all.
    """
    # Weights that are published as a pickle alone have to be saved again before a preset runs.
    among = tuple(card for card in (cards() if known is None else known).values() if not card.pickled)
    wanted: Sequence[tuple[str, Callable[[Card], bool], Callable[[Card], tuple[float, ...]]]] = (
        (
            "nothing to download, a first look",
            lambda card: card.bundled is not None and card.encoder is None,
            _smallest,
        ),
        ("a laptop without GPU, photographs", _for_a_laptop, _most_heads),
        ("your own pictures, nothing drawn", lambda card: card.family == "neighbours", _smallest),
        ("the paper's own pair, on a GPU", lambda card: card.configs is not None, _smallest),
        ("the most heads in one pass", lambda card: passes(card) == 1 and card.heads > 0, _most_heads),
    )
    rows: list[Recommendation] = []
    for need, fits, rank in wanted:
        fitting = sorted(filter(fits, among), key=rank)
        if fitting:
            rows.append(Recommendation(need, fitting[0].name, _reason(fitting[0])))
    return tuple(rows)


def passes(card: Card) -> int:
    """Returns the passes of the decoder's network for one picture, under its default options."""
    return card.defaults.steps if card.defaults.guidance <= 1 else 2 * card.defaults.steps


def _for_a_laptop(card: Card) -> bool:
    fits = passes(card) == 1 and 0 < card.gigabytes <= LAPTOP_GIGABYTES
    return fits and card.domain.startswith("photographs") and not card.terms and max(card.defaults.size) <= 256


def _smallest(card: Card) -> tuple[float, ...]:
    return (card.gigabytes,)


def _most_heads(card: Card) -> tuple[float, ...]:
    return (-card.layers * card.heads, card.gigabytes)


def _reason(card: Card) -> str:
    number = passes(card)
    size = "nothing to download" if card.encoder is None else f"{card.gigabytes:g} GB"
    heads = f", {card.layers} x {card.heads} heads" if card.heads else ""
    drawn = "one pass" if number == 1 else f"{number} passes"
    terms = f"; {card.terms}" if card.terms else ""
    return f"{drawn}, {size}{heads}; domain: {card.domain}{terms}"
