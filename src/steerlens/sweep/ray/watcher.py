"""Ends the processes of a local Ray when the process that started it is gone, however it went.

Run as a program, with the number of that process as its argument, from the standard library alone. The kernel ends
Ray's head with the driver, but the head's helpers look for it only now and then and would live on for a minute.
"""

import os
import select
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_SECONDS = 0.5
"""How often the processes are listed."""

_HEADS = ("raylet", "gcs_server")
"""Names of the processes that Ray's other processes descend from."""

Process = tuple[int, int]
"""Number and start time: numbers are given again."""


def processes() -> dict[int, tuple[int, str, int]]:
    """Parent, name and start time of every process, by number; empty where there is no /proc."""
    found: dict[int, tuple[int, str, int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):
            before, _, after = (folder / "stat").read_text(errors="replace").rpartition(")")
            fields = after.split()
            if fields[0] != "Z":
                found[int(folder.name)] = (int(fields[1]), before.partition("(")[2], int(fields[19]))
    return found


def of_ray(driver: int, known: Mapping[int, tuple[int, str, int]]) -> set[Process]:
    """The processes of Ray below a driver: the heads that it started and all below them."""
    heads = {pid for pid, (parent, name, _) in known.items() if parent == driver and name in _HEADS}
    inside, more = set(heads), set(heads)
    while more:
        more = {pid for pid, (parent, _, _) in known.items() if parent in more} - inside
        inside |= more
    return {(pid, known[pid][2]) for pid in inside}


def main(driver: int) -> None:
    """Watches until standard input ends, then ends whatever of Ray was seen and is still there."""
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
