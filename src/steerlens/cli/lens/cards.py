"""Cards of heads on the command line: what each head adds to an input, as lines and as JSON values."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from steerlens.atlas import CardEnd, HeadCard, InputCards
from steerlens.report.cards import measured_words, missing_words

_MOST = 3
"""Names, or real pictures, of each end that a line shows."""


def card_lines(cards: InputCards | None) -> Iterator[str]:
    """Lines on the change that each head with a card makes, and on the measured faithfulness of cards."""
    if cards is None or not cards.heads:
        return
    yield f"  heads steered by {cards.strength} along their write and against it, their mean write taken out:"
    for card in cards.heads:
        yield f"    {_card_words(card)}"
    for measured in cards.faithfulness:
        of, figure, _, measure = measured_words(measured, "")
        yield f"    {of}, measured on {cards.model}: {figure} ({measure})"
    if missing := missing_words(cards):
        yield f"    {missing}"


def cards_json(cards: InputCards) -> dict[str, Any]:
    """Cards without pictures, as JSON values."""
    return {
        "strength": cards.strength,
        "bank": cards.bank,
        "chance": cards.chance,
        "heads": [
            {"site": str(card.site), "gains": _end_json(card.gains), "loses": _end_json(card.loses)}
            for card in cards.heads
        ],
        "faithfulness": [asdict(measured) for measured in cards.faithfulness],
        "missing": missing_words(cards),
    }


def _end_json(end: CardEnd) -> dict[str, Any]:
    return {
        "fidelity": end.decoded.value,
        "real": [{"name": picture.name, "value": picture.value} for picture in end.real],
        "names": [asdict(name) for name in end.names],
    }


def _card_words(card: HeadCard) -> str:
    return f"{card.site.label} gains {_end_words(card.gains)}; loses {_end_words(card.loses)}"


def _end_words(end: CardEnd) -> str:
    """Names better than chance; without a vocabulary, what the real pictures show."""
    if not end.names:
        return ", ".join(list(dict.fromkeys(picture.name for picture in end.real))[:_MOST])
    return ", ".join([name.text for name in end.names if name.stands_out][:_MOST]) or "no name beyond chance"
