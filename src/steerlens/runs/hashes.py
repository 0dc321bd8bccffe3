"""SHA-256 of each file of a run, to detect damaged and foreign files.

`SHA256SUMS` has a line for each file, `HASH  cells/part-000000.parquet`, as `sha256sum --check` reads it. A line is
appended before the parquet file that completes a part or a reading gets its name, so a complete one is always listed.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from steerlens.errors import StoreError
from steerlens.limits import is_special
from steerlens.storage import atomic_write, storing

HASHES = "SHA256SUMS"

_ALL_LISTED = "# SHA-256 of every file in cells/ and inputs/"
"""First line in a run all of whose files have a hash, unlike one that 0.1.0 began. `sha256sum` skips it.

Labels, tensors, units and cards have hashes too; the line stays as it was, so that earlier runs are recognised."""

_SPECIAL = "it is not a regular file"

_LINE = re.compile(r"([0-9a-f]{64})  ((?:cards|cells|inputs|labels|tensors|units)/[^/\n]+)")

_CHECKED_ON_OPENING = 256_000_000
"""Bytes of a run that are hashed whenever it is opened, a fraction of a second; `runs verify` hashes any run."""


def read_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a run, by name inside it; empty for a run of 0.1.0. Half-written lines are left out.

    Raises:
        StoreError: if they cannot be read.
    """
    if is_special(folder / HASHES):
        raise StoreError(f"{folder / HASHES} cannot be read: {_SPECIAL}.")
    try:
        text = (folder / HASHES).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreError(f"{folder / HASHES} cannot be read: {error.strerror or error}.") from error
    matches = [_LINE.fullmatch(line) for line in text.splitlines()]
    return {match[2]: match[1] for match in matches if match}


def begin_hashes(folder: Path) -> None:
    """Begins the hashes of a new run.

    Raises:
        StoreError: if they cannot be written.
    """
    atomic_write(folder / HASHES, f"{_ALL_LISTED}\n".encode())


def all_listed(folder: Path) -> bool:
    """True if every file of the run must have a hash, since none was written before runs had them."""
    if is_special(folder / HASHES):
        return False
    try:
        with (folder / HASHES).open("rb") as file:
            return file.readline().rstrip() == _ALL_LISTED.encode()
    except OSError:
        return False


def append_hashes(folder: Path, files: Mapping[str, bytes]) -> None:
    """Appends the hashes of files that are about to be written, and flushes them to the disk.

    Raises:
        StoreError: if they cannot be written.
    """
    path = folder / HASHES
    lines = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in files.items())
    with storing(path):
        # No link is followed: it could name a file anywhere.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with os.fdopen(descriptor, "ab") as file:
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())


def tidy_hashes(folder: Path) -> None:
    """Drops half-written lines and those of files that are gone.

    Raises:
        StoreError: if they cannot be written.
    """
    path = folder / HASHES
    if not path.is_file():
        return
    kept = {name: digest for name, digest in read_hashes(folder).items() if (folder / name).exists()}
    first = f"{_ALL_LISTED}\n" if all_listed(folder) else ""
    text = (first + "".join(f"{digest}  {name}\n" for name, digest in kept.items())).encode()
    if text != path.read_bytes():
        atomic_write(path, text)


def damage_of(folder: Path, name: str, hashes: Mapping[str, str]) -> str | None:
    """Describes the damage that a hash shows in a file of a run; None if there is none.

    Args:
        folder: the run.
        name: of the file, inside it.
        hashes: of the run's files.
    """
    if is_special(folder / name):
        return _SPECIAL
    if name not in hashes:
        return None
    try:
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "it is missing"
    except OSError as error:
        return error.strerror or str(error)
    return None if digest == hashes[name] else "it is damaged, or not the file that this run wrote: its hash differs"


FOREIGN = "this run did not write it"


def check_on_opening(folder: Path, names: list[str]) -> None:
    """Checks the hashes of a run's files, if the run is small enough for that to take no time.

    Args:
        folder: the run.
        names: of its files, inside it.

    Raises:
        StoreError: if a file is not the one that was written.
    """
    for name in names:
        if is_special(folder / name):
            raise damaged(folder / name, _SPECIAL)
    hashes = read_hashes(folder)
    if all_listed(folder):
        for name in names:
            if name not in hashes:
                raise damaged(folder / name, FOREIGN)
    listed = [name for name in names if name in hashes]
    size = 0
    for name in listed:
        with suppress(OSError):  # what cannot be read is reported below
            size += (folder / name).stat().st_size
    if size <= _CHECKED_ON_OPENING:
        for name in listed:
            if reason := damage_of(folder, name, hashes):
                raise damaged(folder / name, reason)


def damaged(path: Path, reason: str) -> StoreError:
    """The message about a file of a run that cannot be used."""
    return StoreError(
        f"{path} cannot be read: {reason}. `steerlens runs verify {path.parent.parent} --remove-damaged` moves what is "
        "damaged aside; the command that began the run redoes it then."
    )
