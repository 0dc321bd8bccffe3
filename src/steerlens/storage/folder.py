"""Folders that steerlens writes: no file lands outside, and no file of others is removed.

Names from files (ids, lenses, names of pictures) are data. They become part of a path only through `OwnedFolder.path`,
which refuses a name that leads elsewhere, or through `safe_name`, which turns any text into a harmless name.
"""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

from steerlens.errors import StoreError
from steerlens.storage.files import atomic_write, make_folder, storing, unfinished_name

_Key = TypeVar("_Key")

_NAME_CHARACTERS, _NAME_BYTES = 80, 160
"""Length to which a name is cut, so that it fits into the 255 bytes of a file system with its prefix and suffix."""

_MARK_BYTES = 60
"""Length to which the mark behind a name is cut."""

_LONGEST_NAME = 255
"""Longest name of common file systems, in bytes."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices."""


class OwnedFolder:
    """A folder that steerlens writes.

    Attributes:
        folder: its path, which may contain links, since the user chose it; no link is followed inside.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._added = list[Path]()

    def path(self, *names: str) -> Path:
        """Returns the path of a file or folder inside, one name per level, without creating it.

        Raises:
            StoreError: if a name leads out of the folder, or a folder on the way is a link.
        """
        place = self.folder
        for name in names:
            if place != self.folder:
                _refuse_link(place)
            if not is_plain_name(name):
                raise StoreError(f"{name!r} cannot be the name of a file in {self.folder}; nothing was written there.")
            place = place / name
        return place

    def write(self, data: bytes, *names: str) -> Path:
        """Writes a file atomically, with the folders above it, and returns its path.

        Raises:
            StoreError: if it cannot be written, or would not lie in this folder.
        """
        place = self.path(*names)
        atomic_write(place, data)
        return place

    def make(self, *names: str) -> Path:
        """Makes this folder, or a folder inside it, unless it exists, and returns its path.

        Raises:
            StoreError: if it cannot be made, or would not lie in this folder.
        """
        place = self.inside(*names).folder
        with storing(place):
            make_folder(place)
        return place

    def inside(self, *names: str) -> "OwnedFolder":
        """Returns a folder inside this folder, which need not exist yet.

        Raises:
            StoreError: if it would not lie in this folder.
        """
        place = self.path(*names)
        if names:
            _refuse_link(place)
        return OwnedFolder(place)

    def add(self, data: bytes, *names: str, replace: bool = False) -> Path:
        """Writes a file without waiting for the disk, records it for `take_back`, and returns its path.

        Args:
            data: the bytes of the file.
            names: its folders and its name, one per level.
            replace: whether a file of this name is replaced.

        Raises:
            StoreError: if it cannot be written, is there and not to be replaced, or would not lie in this folder.
        """
        place = self.path(*names)
        with storing(place, goes_on=False):
            for folder in reversed([above for above in place.parents if above.is_relative_to(self.folder)]):
                if not folder.is_dir():
                    folder.mkdir(parents=True)
                    self._added.append(folder)
            if replace:
                place.unlink(missing_ok=True)
            with place.open("xb") as file:  # a link of this name is not followed
                self._added.append(place)
                file.write(data)
        return place

    def take_back(self) -> None:
        """Removes the files that `add` wrote, and the folders that it made if they are empty."""
        for place in reversed(self._added):
            with suppress(OSError):
                if place.is_dir() and not place.is_symlink():
                    place.rmdir()
                else:
                    place.unlink()
        self._added.clear()

    def unfinished(self, own: re.Pattern[str]) -> Iterator[Path]:
        """Yields the files in this folder that a process left half written when it died.

        Args:
            own: pattern of the names of finished files.
        """
        for path in sorted(self.folder.glob(".*")):
            final = unfinished_name(path.name)
            if final is not None and own.fullmatch(final) and path.is_file() and not path.is_symlink():
                yield path


def _refuse_link(place: Path) -> None:
    if place.is_symlink():
        raise StoreError(f"{place} is a link to another folder, and nothing is written through it; remove the link.")


def is_plain_name(name: str) -> bool:
    """True if a text names a file inside a folder: no parent, no separator, no control character."""
    return (
        name not in ("", ".", "..")
        and not any(character in "/\\" or unicodedata.category(character) == "Cc" for character in name)
        and len(name.encode("utf-8", "surrogatepass")) <= _LONGEST_NAME
    )


def safe_name(text: str, *, default: str = "input") -> str:
    """Returns a file name that any file system accepts, as close to a text as possible.

    Letters and digits of all scripts stay, as do `_`, `=`, and, inside, `.` and `-`; anything else becomes `-`.

    Args:
        text: any text.
        default: the name if no character of the text stays.
    """
    name = re.sub(r"[^\w.=-]+", "-", unicodedata.normalize("NFC", text))
    name = re.sub(r"\.{2,}", ".", name).strip("-.")[:_NAME_CHARACTERS]
    name = name.encode()[:_NAME_BYTES].decode(errors="ignore").rstrip("-.") or default
    return f"{name}-" if _RESERVED.fullmatch(name) else name


def distinct_names(texts: Mapping[_Key, tuple[str, str]]) -> dict[_Key, str]:
    """Returns a file name for every text; if the name is taken, the text's mark is appended.

    Names that differ only in case count as equal, as on some file systems.

    Args:
        texts: for each key, the text and a unique mark.
    """
    names, taken = dict[Any, str](), set[str]()
    for key, (text, mark) in texts.items():
        name, beside = safe_name(text), safe_name(mark).encode()[:_MARK_BYTES].decode(errors="ignore")
        # A text may be that of another with its mark, so that numbers follow.
        candidates = chain([name, f"{name}-{beside}"], (f"{name}-{beside}-{number}" for number in count(2)))
        names[key] = next(candidate for candidate in candidates if candidate.casefold() not in taken)
        taken.add(names[key].casefold())
    return names
