"""Output of commands: progress with the time left on stderr, results on stdout, JSON for machines."""

import dataclasses
import json as json_module
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from steerlens.printable import printable
from steerlens.progress import Progress

_LEAST = 8
"""Least characters of a column that wraps."""


class _Count(ProgressColumn):
    """Number of finished steps, their total and their unit."""

    def render(self, task: Task) -> Text:
        total = "" if task.total is None else f"/{task.total:.0f}"
        return Text(f"{math.floor(task.completed + 1e-6)}{total} {task.fields['unit']}".rstrip())


class _Rate(ProgressColumn):
    """Items per second, to three digits."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(_rate(speed) if speed else "", style="dim")


class ProgressBar:
    """Progress of a command, stage by stage.

    Shows a bar with rate and time left on a terminal; elsewhere a plain line every few seconds, so that a log stays
    readable; nothing if the output is for machines.

    Args:
        quiet: True to show nothing, because the command's output is for machines.
        stream: stream to write to; stderr by default, so that stdout contains only results.
        interval: seconds between plain lines.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None, interval: float = 5.0) -> None:
        self._stream = stream or sys.stderr
        self._quiet, self._interval = quiet, interval
        console = Console(file=self._stream)
        self._bars: Bars | None = None
        if console.is_terminal and not quiet:
            text = TextColumn("{task.description}")
            self._bars = Bars(text, BarColumn(), _Count(), _Rate(), TimeRemainingColumn(), console=console)
        self._task: TaskID | None = None
        self._name, self._unit, self._now, self._total, self._done = "", "", "", 0, 0.0
        self._started = self._last = self._before = 0.0

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        if self._bars is not None:
            self._bars.stop()

    def stage(self, name: str, total: int | None = None, *, unit: str = "") -> None:
        """Starts the next stage, and finishes the one before.

        Args:
            name: name of the stage, a word or two.
            total: number of its steps; None if unknown.
            unit: unit of a step, in the plural.
        """
        self._finish()
        self._name, self._unit, self._now, self._total, self._done = name, unit, "", total or 0, 0.0
        self._started = self._last = time.monotonic()
        if self._bars is not None:
            self._task = self._bars.add_task(name, total=total, unit=unit)

    def advance(self, steps: float = 1, *, total: int | None = None, now: str = "") -> None:
        """Records further finished steps of the stage, or fractions of steps.

        Args:
            steps: number of further steps.
            total: new total, if it has changed.
            now: current activity, if it differs from the name of the stage.
        """
        self._done += steps
        self._now = now
        if total is not None:
            self._total = total
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, advance=steps, total=total, description=now or self._name)
        elif not self._quiet and time.monotonic() - self._last >= self._interval:
            self._last = time.monotonic()
            self._line(self._last - self._started)

    def show(self, event: Progress) -> None:
        """Shows an event of a long loop; a change of stage starts a new bar."""
        if event.stage != self._name:
            # Items that an earlier call finished do not count towards the speed.
            counted = event.total > 1
            self.stage(event.stage, max(1, round(event.total - event.done)), unit=event.unit if counted else "")
            self._before = event.done
        self.advance(event.done - self._before - self._done)

    def say(self, text: str) -> None:
        """Writes a line, above the bar if there is one."""
        if self._quiet:
            return
        if self._bars is not None:
            self._bars.console.print(printable(text, lines=True), markup=False, highlight=False, soft_wrap=True)
        else:
            self._write(text)

    def _finish(self) -> None:
        if self._name and self._bars is None and not self._quiet:
            steps = f"{self._count()} " if self._total > 1 else ""
            self._write(f"{self._name}: {steps}done in {_duration(time.monotonic() - self._started)}")
        self._name = ""

    def _line(self, elapsed: float) -> None:
        rate = self._done / max(elapsed, 1e-9)
        left = f", {_duration((self._total - self._done) / rate)} left" if self._total and rate else ""
        now = f"; now {self._now}" if self._now else ""
        self._write(f"{self._name}: {self._count()}, {_rate(rate)}{left}{now}")

    def _count(self) -> str:
        total = f" of {self._total}" if self._total else ""
        return f"{math.floor(self._done + 1e-6)}{total} {self._unit}".rstrip()

    def _write(self, text: str) -> None:
        self._stream.write(printable(text, lines=True) + "\n")
        self._stream.flush()


def _rate(rate: float) -> str:
    return f"{rate:.3g}/s" if rate >= 1 else f"{1 / rate:.3g} s each" if rate > 0 else "0/s"


def _duration(seconds: float) -> str:
    seconds = max(seconds, 0.0)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def plain_bytes(number: float) -> str:
    """Formats a number of bytes with three digits and a unit."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def say(text: str, *, quiet: bool = False) -> None:
    """Writes a line of results to stdout, unless stdout is for machines."""
    if not quiet:
        sys.stdout.write(printable(text, lines=True) + "\n")


def emit_json(content: Any) -> None:
    """Writes JSON to stdout: dataclasses as objects, paths as text, numbers that are not finite as null."""
    text = json_module.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    # Inside JSON the escapes are those of JSON, so that programs read the text as it is.
    sys.stdout.write(printable(text, lines=True, escape=lambda character: json_module.dumps(character)[1:-1]) + "\n")


def plain(content: Any) -> Any:
    """Converts a value to types that JSON supports.

    Raises:
        TypeError: if a value has no such form.
    """
    if content is None or isinstance(content, bool | int | str):
        return content
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Path):
        return str(content)
    if dataclasses.is_dataclass(content) and not isinstance(content, type):
        return {field.name: plain(getattr(content, field.name)) for field in dataclasses.fields(content)}
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in cast(Mapping[Any, Any], content).items()}
    if isinstance(content, list | tuple | set | frozenset):
        return [plain(value) for value in cast(Sequence[Any], content)]
    to_list = getattr(content, "tolist", None)
    if callable(to_list):  # arrays and tensors, of any number of dimensions
        return plain(to_list())
    raise TypeError(f"a {type(content).__name__} has no JSON form")


def terminal_width() -> int | None:
    """Characters of a line of the terminal that stdout is; None for a pipe or a file."""
    console = Console(file=sys.stdout)
    return console.width if console.is_terminal else None


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, whole: Sequence[str] = ()) -> None:
    """Writes a table to stdout, wrapped to the width of a terminal, or not wrapped elsewhere.

    Args:
        headings: a heading for each column.
        rows: a text for each column.
        whole: headings of columns that are never wrapped or cut, however narrow the terminal is.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        for row in (headings, *rows):
            say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    table = Table(box=None, pad_edge=False)
    needed = 0
    for heading, *cells in zip(headings, *rows, strict=True):
        least = max(map(len, (heading, *cells))) if heading in whole else _LEAST
        table.add_column(heading, no_wrap=heading in whole, min_width=least)
        needed += least + 2
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.width = max(console.width, needed)
    console.print(table)
