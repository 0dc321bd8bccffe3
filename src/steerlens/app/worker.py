"""The worker: one thread that owns the models and shares them fairly between tabs.

Work is a generator. The worker advances one generator by one event, then turns to the next tab, so a short request
never waits for another tab's long one. Within a tab the newest request goes first, and a request replaces the one
before it in the same slot: what a slider asked for while it was dragged is dropped, not queued.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any, Literal

from steerlens.errors import SteerlensError, UsageError

_LOG = logging.getLogger(__name__)

Outcome = Literal["event", "done", "superseded", "error"]
"""What the worker tells about a request: an event of its generator, or how it ended."""

Deliver = Callable[[Outcome, Any], None]
"""Takes an outcome on the worker's thread; must return at once."""

UNEXPECTED = "something unexpected went wrong; the server's log says what."
"""Message of an error that is not steerlens's own: a visitor never sees a traceback."""


@dataclass(eq=False)
class Ticket:
    """One request of a tab.

    Attributes:
        tab: the tab that asks.
        slot: what it asks for; a later request for the same slot replaces it.
        make: starts the work.
        deliver: takes its outcomes.
        seconds: seconds of the model's time that it may take.
        cancelled: whether nobody waits for it any more.
    """

    tab: str
    slot: str
    make: Callable[[], Iterator[Any]]
    deliver: Deliver
    seconds: float = 600.0
    cancelled: bool = False
    taken: float = field(default=0.0, init=False)
    running: Iterator[Any] | None = field(default=None, init=False)


class Worker:
    """One thread that answers the requests of all tabs, a step at a time.

    Args:
        most: requests that may wait at once.
        begin: called first on the thread, for example to set the precision or number of threads.
    """

    def __init__(self, most: int = 64, begin: Callable[[], None] | None = None) -> None:
        self._most, self._begin = most, begin
        self._change = Condition()
        self._tabs: dict[str, list[Ticket]] = {}
        self._stopped = False
        self._thread = Thread(target=self._run, name="steerlens-model", daemon=True)
        self._thread.start()

    def submit(
        self, tab: str, slot: str, make: Callable[[], Iterator[Any]], deliver: Deliver, seconds: float = 600.0
    ) -> Ticket:
        """Adds a request; an unfinished one of the same tab and slot ends as superseded.

        Raises:
            UsageError: if too many requests wait.
        """
        ticket = Ticket(tab, slot, make, deliver, seconds)
        with self._change:
            waiting = self._tabs.setdefault(tab, [])
            for older in waiting:
                if older.slot == slot:
                    older.cancelled = True
            if sum(not other.cancelled for tickets in self._tabs.values() for other in tickets) >= self._most:
                raise UsageError("the model is busy with other visitors' requests; try again in a moment.")
            waiting.append(ticket)
            self._change.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Ends a request that nobody waits for; its generator is closed at its next step."""
        with self._change:
            ticket.cancelled = True
            self._change.notify()

    def close(self) -> None:
        """Ends all work and the thread."""
        with self._change:
            self._stopped = True
            self._change.notify()
        self._thread.join(timeout=10)

    @property
    def waiting(self) -> int:
        """Number of requests that are not finished."""
        with self._change:
            return sum(not ticket.cancelled for tickets in self._tabs.values() for ticket in tickets)

    def _run(self) -> None:
        if self._begin is not None:
            self._begin()
        while True:
            with self._change:
                while not self._tabs and not self._stopped:
                    self._change.wait()
                if self._stopped:
                    return
                # The tab that comes first goes to the end, so that every tab has its turn.
                tab = next(iter(self._tabs))
                tickets = self._tabs.pop(tab)
                dropped = [ticket for ticket in tickets if ticket.cancelled]
                kept = [ticket for ticket in tickets if not ticket.cancelled]
                if kept:
                    self._tabs[tab] = kept
            for ticket in dropped:
                self._end(ticket, "superseded", None)
            if kept:
                self._step(kept[-1])

    def _step(self, ticket: Ticket) -> None:
        started = time.monotonic()
        try:
            if ticket.running is None:
                ticket.running = iter(ticket.make())
            event = next(ticket.running)
        except StopIteration:
            self._finish(ticket, "done", None)
            return
        except SteerlensError as error:
            self._finish(ticket, "error", str(error))
            return
        except Exception:
            _LOG.exception("a request failed")
            self._finish(ticket, "error", UNEXPECTED)
            return
        ticket.taken += time.monotonic() - started
        if ticket.taken > ticket.seconds:
            self._finish(
                ticket, "error", f"this took longer than the {ticket.seconds:g} seconds that a request may take."
            )
        elif not ticket.cancelled:
            ticket.deliver("event", event)

    def _finish(self, ticket: Ticket, outcome: Outcome, content: Any) -> None:
        with self._change:
            tickets = [other for other in self._tabs.get(ticket.tab, []) if other is not ticket]
            if tickets:
                self._tabs[ticket.tab] = tickets
            else:
                self._tabs.pop(ticket.tab, None)
        self._end(ticket, outcome, content)

    @staticmethod
    def _end(ticket: Ticket, outcome: Outcome, content: Any) -> None:
        close = getattr(ticket.running, "close", None)
        if close is not None:
            try:
                close()
            except Exception:
                _LOG.exception("a request could not be closed")
        ticket.deliver(outcome, content)
