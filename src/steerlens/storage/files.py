"""Atomic writing of files: a reader never sees half a file."""

import errno
import json
import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from steerlens.errors import StoreError

_UNFINISHED = ".steerlens"
"""Suffix of temporary files, used by no other program."""


@contextmanager
def storing(path: Path, *, goes_on: bool = True) -> Generator[None]:
    """Turns errors of the file system into one clear message.

    Args:
        path: the file to write.
        goes_on: whether earlier files are kept and the work resumes from them; if not, the caller removes them.

    Raises:
        StoreError: if the disk is full, or the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            kept, then = ("What was finished before", " to go on from there") if goes_on else ("Nothing of it", "")
            raise StoreError(
                f"no space left to write {path}. {kept} is kept; free some space and run the same command again{then}."
            ) from error
        raise StoreError(f"cannot write {path}: {error.strerror or error}.") from error


@contextmanager
def atomic_file(path: Path, *, goes_on: bool = True) -> Generator[IO[bytes]]:
    """Opens a file under a temporary name, and flushes and renames it once it is complete.

    Args:
        path: the file.
        goes_on: as for `storing`.

    Raises:
        StoreError: if the disk is full, or the place cannot be written; nothing is left behind.
    """
    with storing(path, goes_on=goes_on):
        if not path.parent.is_dir():
            make_folder(path.parent)
        temporary: Path | None = None
        try:
            # Long names are cut: the temporary name must fit into 255 bytes too.
            prefix = f".{path.name}." if len(path.name.encode()) < 220 else "."
            with NamedTemporaryFile(dir=path.parent, prefix=prefix, suffix=_UNFINISHED, delete=False) as file:
                temporary = Path(file.name)
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            temporary = None
            flush_names(path.parent)
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def atomic_write(path: Path, data: bytes) -> None:
    """Writes a file under a temporary name, flushes it to the disk, and renames it.

    Raises:
        StoreError: if the disk is full, or the place cannot be written; nothing is left behind.
    """
    with atomic_file(path) as file:
        file.write(data)


def unfinished_name(name: str) -> str | None:
    """Returns the final name of a temporary file; None if `atomic_file` does not give such names."""
    match = re.fullmatch(rf"\.(.+)\.[a-z0-9_]+{re.escape(_UNFINISHED)}", name)
    return None if match is None else match[1]


def write_json(path: Path, value: object) -> None:
    """Writes JSON under a temporary name, flushes it to the disk, and renames it.

    Raises:
        StoreError: if the disk is full, or the place cannot be written; nothing is left behind.
    """
    atomic_write(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def make_folder(path: Path) -> None:
    """Makes a folder, with its parents, and flushes its name: otherwise a power cut may remove it with its content.

    An existing folder is flushed too: the process that made it may have died before doing so.

    Raises:
        OSError: if it cannot be made.
    """
    if not path.parent.is_dir():
        make_folder(path.parent)
    path.mkdir(exist_ok=True)
    with suppress(PermissionError):  # a folder above that may be passed through and not read
        flush_names(path.parent)


def files_under(folder: Path, suffix: str = "") -> Iterator[tuple[Path, os.stat_result]]:
    """Yields the files under a folder with their sizes and times, skipping files that another process removes."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if path.suffix == suffix or not suffix:
                with suppress(FileNotFoundError):
                    yield path, path.stat()


def flush_names(folder: Path) -> None:
    """Flushes a folder's list of files: otherwise a power cut may remove one file and leave a later file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    # The umask can only be read by setting it; temporary files are private (0600) whatever its value.
    mask = os.umask(0)
    os.umask(mask)
    return mask
