"""Cards of heads in a run: `cards/ID.json`, one file for each input.

Cards are no part of a run's identity: they are computed after its cells, and again where their own options changed.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steerlens.atlas import CardEnd, CardPicture, Faithfulness, HeadCard, InputCards, TextScore
from steerlens.errors import StoreError, UsageError
from steerlens.limits import read_file
from steerlens.sites import Site
from steerlens.storage import OwnedFolder, parse_json

_FOLDER = "cards"


class StoredCards(Mapping[str, InputCards]):
    """Cards of a run by id of the input, read from disk on access.

    Args:
        folder: the run directory.
        ids: ids of its inputs.
    """

    def __init__(self, folder: Path, ids: tuple[str, ...]) -> None:
        self._folder = folder
        self._ids = tuple(id for id in ids if _file(folder, id).is_file()) if (folder / _FOLDER).is_dir() else ()

    def __getitem__(self, id: str) -> InputCards:
        if id not in self._ids:
            raise KeyError(id)
        return _read(_file(self._folder, id))[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def cards_key(folder: Path, id: str) -> str:
    """Options with which the stored cards of an input were made; empty if there are none that can be read."""
    path = _file(folder, id)
    if not path.is_file():
        return ""
    try:
        return _read(path)[0]
    except StoreError:
        return ""


def write_cards(folder: Path, id: str, cards: InputCards, key: str) -> None:
    """Stores the cards of an input in its run.

    Args:
        folder: the run directory.
        id: id of the input.
        cards: its cards.
        key: text that identifies the options they were made with.

    Raises:
        StoreError: if they cannot be written.
    """
    content = {"key": key, **asdict(cards), "heads": [_head_json(card) for card in cards.heads]}
    OwnedFolder(folder).write(json.dumps(content, ensure_ascii=False).encode(), _FOLDER, f"{id}.json")


def _file(folder: Path, id: str) -> Path:
    return OwnedFolder(folder).path(_FOLDER, f"{id}.json")


def _read(path: Path) -> tuple[str, InputCards]:
    """The key and the cards.

    Raises:
        StoreError: if the file is no such file.
    """
    try:
        content = parse_json(read_file(path, "manifest_bytes"))
        chance = content["chance"]
        cards = InputCards(
            model=str(content["model"]),
            strength=str(content["strength"]),
            bank=str(content["bank"]),
            chance=None if chance is None else float(chance),
            heads=tuple(
                HeadCard(Site.parse(str(head["site"])), _end(head["gains"]), _end(head["loses"]))
                for head in content["heads"]
            ),
            faithfulness=tuple(
                Faithfulness(
                    of=str(measured["of"]),
                    measure=str(measured["measure"]),
                    value=float(measured["value"]),
                    low=float(measured["low"]),
                    high=float(measured["high"]),
                    heads={str(head): float(value) for head, value in measured["heads"].items()},
                    pictures=int(measured["pictures"]),
                )
                for measured in content["faithfulness"]
            ),
        )
        return str(content["key"]), cards
    except (UsageError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{path} cannot be read: {str(error).rstrip('.')}. Remove it, and run the command that made it again."
        ) from error


def _head_json(card: HeadCard) -> dict[str, Any]:
    return {"site": str(card.site), "gains": _end_json(card.gains), "loses": _end_json(card.loses)}


def _end_json(end: CardEnd) -> dict[str, Any]:
    return {
        "decoded": _picture_json(end.decoded),
        "real": [_picture_json(picture) for picture in end.real],
        "names": [asdict(name) for name in end.names],
    }


def _picture_json(picture: CardPicture) -> dict[str, Any]:
    return {"name": picture.name, "value": picture.value, "png": base64.b64encode(picture.png).decode()}


def _end(content: Any) -> CardEnd:
    return CardEnd(
        decoded=_picture(content["decoded"]),
        real=tuple(map(_picture, content["real"])),
        names=tuple(
            TextScore(str(name["text"]), float(name["score"]), float(name["excess"]), bool(name["stands_out"]))
            for name in content["names"]
        ),
    )


def _picture(content: Any) -> CardPicture:
    return CardPicture(str(content["name"]), float(content["value"]), base64.b64decode(content["png"], validate=True))
