"""Cards of heads on a page: plain values, with every number beside its measured faithfulness."""

from collections.abc import Mapping
from typing import Any

from steerlens.atlas import CardEnd, CardPicture, Faithfulness, HeadCard, InputCards
from steerlens.report.embed import data_uri
from steerlens.report.terms import two

THUMBNAIL_SIDE = 96
"""Longest side of a card's pictures, in pixels."""

MEASURED_BY = {"contrast pair": "lenses", "real pictures": "lenses", "own write": "identification"}
"""What a card shows -> the study that measures how far it can be trusted."""


def card_data(cards: InputCards | None, addresses: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """Cards of one input for the page's script; None without any.

    Args:
        cards: the cards.
        addresses: files of the cards, by text form of the head; by default the page holds all cards.
    """
    if cards is None or not cards.heads:
        return None
    heads = {str(card.site): head_card_data(cards, card) for card in cards.heads} if addresses is None else addresses
    return {
        "strength": cards.strength.replace("rho=", "ρ = ").replace("s=", "s = "),
        "bank": cards.bank,
        "model": cards.model,
        "missing": missing_words(cards),
        "heads": dict(heads),
    }


def head_card_data(cards: InputCards, card: HeadCard) -> dict[str, Any]:
    """The card of one head for the page's script, with its pictures as `data:` addresses."""
    return {
        "ends": [_end_data(end) for end in (card.gains, card.loses)],
        "faithful": [measured_words(measured, card.site.label) for measured in cards.faithfulness],
    }


def measured_words(measured: Faithfulness, head: str) -> tuple[str, str, str, str]:
    """Texts of a measurement: its subject, its value over all heads with the interval, this head's own, the measure."""
    figure = f"{two(measured.value)} [{two(measured.low)}, {two(measured.high)}]"
    own = measured.heads.get(head)
    measure = f"{measured.measure}; {measured.pictures} pictures"
    return measured.of, figure, "not measured" if own is None else two(own), measure


def missing_words(cards: InputCards) -> str:
    """Names the ways of showing heads that were not measured on the model, and the studies that measure them."""
    known = {measured.of for measured in cards.faithfulness}
    missing = [of for of in MEASURED_BY if of not in known]
    if not missing:
        return ""
    studies = " and ".join(f"steerlens study {study}" for study in dict.fromkeys(MEASURED_BY[of] for of in missing))
    names = {"contrast pair": "contrast pairs", "real pictures": "real pictures", "own write": "own writes"}
    named = " and ".join(filter(None, (", ".join(names[of] for of in missing[:-1]), names[missing[-1]])))
    return (
        f"Not measured on {cards.model}: how far {named} can be trusted ({studies}; --studies shows the figures here)."
    )


def _end_data(end: CardEnd) -> dict[str, Any]:
    return {
        "decoded": _picture_data(end.decoded),
        "real": [_picture_data(picture) for picture in end.real],
        "names": [(name.text, name.stands_out) for name in end.names],
    }


def _picture_data(picture: CardPicture) -> dict[str, Any]:
    return {
        "src": data_uri(picture.image, side=THUMBNAIL_SIDE),
        "name": picture.name,
        "value": round(picture.value, 3) + 0.0,
    }
