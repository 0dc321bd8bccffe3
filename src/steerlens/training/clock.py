"""Training time: the sum of steps' durations, without pauses."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

_LONGEST_FIRST = 60.0
"""Seconds that the first steps, whose usual duration is not known yet, count at most."""

_TIMES_USUAL = 10.0
"""A step counts at most this many times the median of the last ones."""


@dataclass
class StepClock:
    """Clock that advances with steps alone.

    A process that was stopped (SIGSTOP, a suspended laptop) would otherwise use up its budget without training. A step
    much longer than the last ones therefore counts as ten usual ones.

    Attributes:
        seconds: training time so far.
        now: reads the time in seconds.
    """

    seconds: float = 0.0
    now: Callable[[], float] = time.monotonic
    _last: deque[float] = field(default_factory=lambda: deque[float](maxlen=31))
    _start: float = 0.0

    def begin(self) -> None:
        """Begins a step."""
        self._start = self.now()

    def end(self) -> None:
        """Ends a step, and counts it."""
        duration = self.now() - self._start
        allowed = _LONGEST_FIRST if len(self._last) < 3 else _TIMES_USUAL * statistics.median(self._last)
        counted = min(duration, allowed)
        self._last.append(counted)
        self.seconds += counted
