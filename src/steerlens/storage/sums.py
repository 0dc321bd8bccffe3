"""SHA-256 of the files of a folder that steerlens fills part by part, to detect damage when they are read.

`SHA256SUMS` has a line for each file, `HASH  parts/report-0.safetensors`, as `sha256sum --check` reads it. A line is
appended before its file gets its name, so a finished file is always listed; folders of earlier versions have none.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from steerlens.errors import StoreError
from steerlens.limits import is_special
from steerlens.storage.files import atomic_write, storing
from steerlens.storage.folder import OwnedFolder

SUMS = "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64})  (\S[^\n]*)")


def write_with_sum(folder: OwnedFolder, data: bytes, *names: str) -> Path:
    """Writes a file and its line in `SHA256SUMS`, and returns its path.

    Raises:
        StoreError: if they cannot be written.
    """
    name, digest = "/".join(names), hashlib.sha256(data).hexdigest()
    folder.make()
    path, before = folder.path(SUMS), _read_sums(folder.folder)
    if digest not in before.get(name, ()):
        with storing(path):
            # No link is followed: it could name a file anywhere.
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            with os.fdopen(descriptor, "ab") as file:
                # A process that died may have left half a line, which must not swallow this one.
                file.write(f"{_line_break(path)}{digest}  {name}\n".encode())
                file.flush()
                os.fsync(file.fileno())
    place = folder.write(data, *names)
    if set(before.get(name, ())) - {digest}:
        kept = {**before, name: (digest,)}
        lines = (f"{listed}  {file}\n" for file, digests in kept.items() for listed in digests)
        atomic_write(path, "".join(lines).encode())
    return place


def check_sum(folder: Path, name: str, data: bytes, advice: str) -> None:
    """Checks that a file is one that was written, if it has a line in `SHA256SUMS`.

    Args:
        folder: the folder.
        name: of the file, inside it.
        data: what was read of it.
        advice: what to do about a damaged file, for the message.

    Raises:
        StoreError: if it is another file.
    """
    listed = _read_sums(folder).get(name)
    if listed and hashlib.sha256(data).hexdigest() not in listed:
        raise StoreError(
            f"{folder / name} cannot be read: it is damaged or was changed since it was written, its hash differs; "
            f"{advice}."
        )


def _line_break(path: Path) -> str:
    """Returns a line break if the last line of a file has none."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return ""
        file.seek(-1, os.SEEK_END)
        return "" if file.read() == b"\n" else "\n"


def _read_sums(folder: Path) -> Mapping[str, tuple[str, ...]]:
    """Hashes of each file by name: two if a process died while it replaced the file. Half-written lines are left out.

    Raises:
        StoreError: if they cannot be read.
    """
    path = folder / SUMS
    if is_special(path):  # a pipe or a device would be read without end
        raise StoreError(f"{path} cannot be read: it is not a regular file.")
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}.") from error
    sums: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line):
            sums[match[2]] = (*sums.get(match[2], ()), match[1])
    return sums
