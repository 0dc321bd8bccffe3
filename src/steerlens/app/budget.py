"""Budgets: how much a visitor may ask for in a minute. Imports nothing heavy."""

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from steerlens.errors import UsageError

_VISITORS = 10_000
"""Visitors that are remembered; the one seen longest ago is forgotten first."""


class Budget:
    """Tokens per visitor, which refill evenly over a minute.

    Args:
        most: tokens per minute; None for any number.
        what: what a token buys, in the plural, for the message.
        clock: returns seconds; replaced in tests.
    """

    def __init__(self, most: int | None, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._what, self._clock = most, what, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def spend(self, visitor: str, tokens: int = 1) -> None:
        """Takes tokens of a visitor.

        Raises:
            UsageError: if they are used up.
        """
        if self._most is None:
            return
        with self._lock:
            now = self._clock()
            left, since = self._left.pop(visitor, (float(self._most), now))
            left = min(left + (now - since) * self._most / 60, float(self._most))
            enough = left >= tokens
            self._left[visitor] = (left - tokens if enough else left, now)
            while len(self._left) > _VISITORS:
                self._left.popitem(last=False)
        if not enough:
            wait = max(1, round((tokens - left) * 60 / self._most))
            raise UsageError(f"this server gives {self._most} {self._what} a minute to each visitor; wait {wait} s.")
