"""Watcher that kills the processes of a local Ray once the process that started it has ended, for whatever reason.

Runs as a program with the id of that process as its argument, and uses only the standard library. The kernel kills
Ray's head with the driver, but the head's helpers check for it only rarely, and would survive for a minute.
"""

import os
import select
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_SECONDS = 0.5
"""Seconds between two listings of the processes."""

_HEADS = ("raylet", "gcs_server")
"""Names of the processes from which Ray's other processes descend."""

Process = tuple[int, int]
"""Id and start time of a process, because ids are reused."""


def processes() -> dict[int, tuple[int, str, int]]:
    """Lists processes: id -> parent, name and start time; empty without /proc."""
    by_id: dict[int, tuple[int, str, int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            before, _, after = (folder / "stat").read_text(errors="replace").rpartition(")")
            fields = after.split()
            if fields[0] != "Z":
                by_id[int(folder.name)] = (int(fields[1]), before.partition("(")[2], int(fields[19]))
    return by_id


def of_ray(driver: int, known: Mapping[int, tuple[int, str, int]]) -> set[Process]:
    """Finds Ray's processes below a driver: the heads that it started and all their descendants."""
    heads = {pid for pid, (parent, name, _) in known.items() if parent == driver and name in _HEADS}
    inside, more = set(heads), set(heads)
    while more:
        more = {pid for pid, (parent, _, _) in known.items() if parent in more} - inside
        inside |= more
    return {(pid, known[pid][2]) for pid in inside}


def main(driver: int) -> None:
    """Watches until standard input ends, then kills all of Ray's processes that are still running."""
    seen: set[Process] = set()
    while True:
        seen |= of_ray(driver, processes())
        ready, _, _ = select.select([sys.stdin], [], [], _SECONDS)
        if ready and not os.read(sys.stdin.fileno(), 1):
            break
    known = processes()
    for pid, started in seen:
        if pid in known and known[pid][2] == started:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    main(int(sys.argv[1]))
