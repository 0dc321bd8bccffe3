"""Commands in forked processes of one that has imported everything: with limits, and measured."""

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


@dataclass(frozen=True)
class Limits:
    """What a command may take.

    Attributes:
        seconds: of processor time.
        wall: seconds until it counts as hanging, whatever it waits for.
        memory: bytes, beyond those of the process that it was forked from.
    """

    seconds: float = 20.0
    wall: float = 90.0
    memory: int = 1_000_000_000


@dataclass(frozen=True)
class Outcome:
    """What became of a command.

    Attributes:
        code: exit code; negative for the signal that ended it.
        seconds: processor time.
        memory: bytes at most, beyond those of the process that it was forked from.
        out: standard output.
        err: standard error.
        hung: whether it was ended for taking too long.
    """

    code: int
    seconds: float
    memory: int
    out: str
    err: str
    hung: bool


def run_in_child(
    command: Callable[[Sequence[str]], int], arguments: Sequence[str], folder: Path, limits: Limits, before: int = 0
) -> Outcome:
    """Runs a command in a forked process in a folder, its output in files beside it.

    Args:
        command: takes arguments and gives an exit code.
        arguments: of the command.
        folder: where it runs.
        limits: what it may take.
        before: bytes of a child that does nothing, which are not counted.
    """
    out, err = folder.with_suffix(".out"), folder.with_suffix(".err")
    pid = os.fork()
    if pid == 0:
        _child(command, arguments, folder, out, err, limits)
    deadline, hung = time.monotonic() + limits.wall, False
    while True:
        done, status, used = os.wait4(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            hung = True
            os.killpg(pid, signal.SIGKILL)
            _, status, used = os.wait4(pid, 0)
            break
        time.sleep(0.005)
    texts = [path.read_bytes().decode("utf-8", "replace") for path in (out, err)]
    seconds, memory = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 - before
    return Outcome(os.waitstatus_to_exitcode(status), seconds, memory, *texts, hung)


def _child(
    command: Callable[[Sequence[str]], int],
    arguments: Sequence[str],
    folder: Path,
    out: Path,
    err: Path,
    limits: Limits,
) -> NoReturn:
    code = 70
    try:
        os.setsid()
        os.chdir(folder)
        for number, path in ((1, out), (2, err)):
            opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, number)
            os.close(opened)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        cpu = int(limits.seconds) + 5
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        space = _virtual() + 2 * limits.memory
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
        code = command(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
