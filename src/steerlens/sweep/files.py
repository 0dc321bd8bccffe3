"""Writing files so that a reader never sees half of one."""

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from steerlens.errors import StoreError


@contextmanager
def storing(path: Path) -> Generator[None]:
    """Turns what the file system refuses into one clear message.

    Raises:
        StoreError: if the disk is full, or the place cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"no space left to write {path}. What was finished before is kept; free some space and run the same "
                "command again to go on from there."
            ) from error
        raise StoreError(f"cannot write {path}: {error.strerror or error}.") from error


@contextmanager
def atomic_file(path: Path) -> Generator[IO[bytes]]:
    """A file to write under a temporary name, which is flushed to the disk and renamed once it is whole.

    Raises:
        StoreError: if the disk is full, or the place cannot be written; nothing is left behind.
    """
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary: Path | None = None
        try:
            with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
                temporary = Path(file.name)
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            temporary = None
            _flush_names(path.parent)
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


def _flush_names(folder: Path) -> None:
    """Flushes which files a folder holds: else a power cut may take one file and leave a later one."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    # The process's umask can only be read by setting it; a temporary file is private (0600) whatever it is.
    mask = os.umask(0)
    os.umask(mask)
    return mask
