"""Cards of heads in a run: `cards/ID.json`, one file for each input.

Cards are no part of a run's identity: they are computed after its cells, and again where their own options changed. The
hash of each file is in `SHA256SUMS`, beside those of the run's other files; cards of earlier versions have none.
"""

import base64
import json
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

from steerlens.atlas import CardEnd, CardPicture, Faithfulness, HeadCard, InputCards, TextScore
from steerlens.errors import StoreError, UsageError
from steerlens.limits import read_file
from steerlens.runs.hashes import append_hashes, damage_of, read_hashes, tidy_hashes
from steerlens.sites import Site
from steerlens.storage import OwnedFolder, only_writer, parse_json, storing

CARDS = "cards"
"""Folder of a run for cards."""


class StoredCards(Mapping[str, InputCards]):
    """Cards of a run by id of the input, read from disk on access.

    Args:
        folder: the run directory.
        ids: ids of its inputs.
    """

    def __init__(self, folder: Path, ids: Iterable[str]) -> None:
        self._folder = folder
        there = card_files(folder)
        self._files = {id: there[id] for id in ids if id in there}

    def __getitem__(self, id: str) -> InputCards:
        return self.read(id)[1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, id: object) -> bool:
        return id in self._files

    def key_of(self, id: str) -> str:
        """Text that identifies the options of an input's cards; empty if it has none that can be read."""
        try:
            return self.read(id)[0] if id in self._files else ""
        except StoreError:
            return ""

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return read_hashes(self._folder)

    def read(self, id: str) -> tuple[str, InputCards]:
        """The key and the cards of an input.

        Raises:
            KeyError: if it has no cards.
            StoreError: if its file is damaged.
        """
        path = self._files[id]
        if reason := damage_of(self._folder, f"{CARDS}/{path.name}", self._hashes):
            raise _unreadable(path, reason)
        return read_cards_file(path)


def card_files(folder: Path) -> dict[str, Path]:
    """Files with the cards of inputs: id of the input -> file."""
    return {path.stem: path for path in sorted((folder / CARDS).glob("[!.]*.json"))}


@contextmanager
def writing_cards(folder: Path) -> Generator[None]:
    """Locks a run while cards are written to it.

    Raises:
        StoreError: if another process is writing to the run.
    """
    with only_writer(folder):
        yield
        tidy_hashes(folder)


def write_cards(folder: Path, id: str, cards: InputCards, key: str) -> None:
    """Stores the cards of an input in its run, which `writing_cards` or `open_run` has locked.

    Args:
        folder: the run directory.
        id: id of the input.
        cards: its cards.
        key: text that identifies the options they were made with.

    Raises:
        StoreError: if they cannot be written.
    """
    content = {"key": key, **asdict(cards), "heads": [_head_json(card) for card in cards.heads]}
    data, own = json.dumps(content, ensure_ascii=False).encode(), OwnedFolder(folder)
    path = own.path(CARDS, f"{id}.json")
    with storing(path):
        path.unlink(missing_ok=True)  # before the new hash, which would state that the former cards are damaged
    append_hashes(folder, {f"{CARDS}/{path.name}": data})
    own.write(data, CARDS, path.name)


def read_cards_file(path: Path) -> tuple[str, InputCards]:
    """The key and the cards in a file.

    Raises:
        StoreError: if the file contains something else.
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
    except (UsageError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unreadable(path, str(error).rstrip(".")) from error


def _unreadable(path: Path, reason: str) -> StoreError:
    return StoreError(
        f"{path} cannot be read: {reason}. Remove it, and give the `steerlens lens` command with --bank that made it "
        "again."
    )


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
    value = float(content["value"])
    if not isfinite(value):
        raise ValueError(f"the value of a picture is {value}")
    return CardPicture(str(content["name"]), value, base64.b64decode(content["png"], validate=True))
