"""Lock on a run directory, for one writer at a time; it ends with its process."""

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from steerlens.errors import StoreError
from steerlens.storage.files import storing

LOCK_FILE = ".lock"

_PATIENCE_SECONDS = 1.0
"""Time that a writer keeps trying: `is_being_written` holds the lock for an instant."""

_PAUSE_SECONDS = 0.05


@contextmanager
def only_writer(folder: Path) -> Generator[None]:
    """Holds the lock of a folder.

    Raises:
        StoreError: if another process holds it, the file system has no locks, or the folder cannot be written.
    """
    with storing(folder / LOCK_FILE):
        # Links are not followed: they could name a file anywhere.
        file = os.fdopen(
            os.open(folder / LOCK_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666), "a"
        )
    with file:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError(
                        f"another process is writing to {folder}; wait for it, or give another --out."
                    ) from None
                time.sleep(_PAUSE_SECONDS)
            except OSError as error:
                raise StoreError(
                    f"{folder} cannot be locked ({error.strerror or error}), so two processes might write to it at "
                    "once; give an --out on a file system that has locks, such as a local disk."
                ) from error
        yield


def is_being_written(folder: Path) -> bool:
    """True if a process holds the lock of a folder, as far as this process can tell."""
    try:
        with (folder / LOCK_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, no permission to read it, or a file system without locks
        return False
    return False
