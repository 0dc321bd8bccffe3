"""The worker: fair between tabs, and never busy with what nobody waits for."""

from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest

from steerlens.app.worker import UNEXPECTED, Ticket, Worker
from steerlens.errors import UsageError


class Watch:
    """Outcomes of requests, in order, and an event for the last."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, Any, Any]] = []
        self.ended: dict[str, Event] = {}

    def deliver(self, name: str) -> Any:
        self.ended[name] = Event()

        def deliver(outcome: str, content: Any) -> None:
            self.outcomes.append((name, outcome, content))
            if outcome != "event":
                self.ended[name].set()

        return deliver

    def of(self, name: str) -> list[tuple[str, Any]]:
        return [(outcome, content) for other, outcome, content in self.outcomes if other == name]

    def wait(self, *names: str) -> None:
        for name in names:
            assert self.ended[name].wait(20), name


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(most=8)
    yield worker
    worker.close()


def held(gate: Event, steps: int = 3) -> Any:
    def make() -> Iterator[int]:
        gate.wait(20)
        yield from range(steps)

    return make


def test_tabs_take_turns_step_by_step(worker: Worker) -> None:
    watch, gate = Watch(), Event()
    worker.submit("a", "x", held(gate, 30), watch.deliver("a"))
    worker.submit("b", "x", held(gate, 3), watch.deliver("b"))
    worker.submit("c", "x", held(gate, 3), watch.deliver("c"))
    gate.set()
    watch.wait("a", "b", "c")
    order = [name for name, outcome, _ in watch.outcomes if outcome == "event"]
    # A long request of one tab does not hold up the short ones of others.
    assert max(index for index, name in enumerate(order) if name != "a") < 12
    assert watch.of("a")[-1] == ("done", None)


def test_a_later_request_for_the_same_slot_replaces_what_waits(worker: Worker) -> None:
    watch, gate, started = Watch(), Event(), []

    def make(number: int) -> Any:
        def work() -> Iterator[int]:
            started.append(number)
            yield number

        return work

    worker.submit("b", "block", held(gate, 1), watch.deliver("block"))
    for number in range(6):
        worker.submit("a", "slider", make(number), watch.deliver(str(number)))
    gate.set()
    watch.wait("block", *map(str, range(6)))
    # Dragging never queues stale work: the last request alone is carried out.
    assert started == [5]
    assert all(watch.of(str(number)) == [("superseded", None)] for number in range(5))


def test_a_cancelled_request_stops_at_its_next_step(worker: Worker) -> None:
    watch, seen, closed, tickets = Watch(), [], Event(), list[Ticket]()

    def make() -> Iterator[int]:
        try:
            for number in range(1000):
                seen.append(number)
                if number == 3:
                    worker.cancel(tickets[0])
                yield number
        finally:
            closed.set()

    gate = Event()
    worker.submit("b", "block", held(gate, 1), watch.deliver("block"))
    tickets.append(worker.submit("a", "x", make, watch.deliver("a")))
    gate.set()
    watch.wait("a")
    assert closed.is_set() and seen == [0, 1, 2, 3]


def test_errors_are_messages_and_the_worker_lives_on(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch()

    def refused() -> Iterator[int]:
        raise UsageError("no such head.")
        yield 0

    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("/secret/path")

    worker.submit("a", "x", refused, watch.deliver("refused"))
    worker.submit("a", "y", broken, watch.deliver("broken"))
    worker.submit("a", "z", lambda: iter([7]), watch.deliver("fine"))
    watch.wait("refused", "broken", "fine")
    assert watch.of("refused") == [("error", "no such head.")]
    assert watch.of("broken") == [("event", 1), ("error", UNEXPECTED)]
    assert watch.of("fine") == [("event", 7), ("done", None)]
    assert "secret" in caplog.text  # the log has it, the visitor does not


def test_too_many_requests_are_refused_and_long_ones_end(worker: Worker) -> None:
    watch, gate = Watch(), Event()
    worker.submit("t", "x", held(gate), watch.deliver("t"))
    for number in range(7):
        worker.submit(str(number), "x", held(gate), watch.deliver(str(number)))
    with pytest.raises(UsageError, match="busy"):
        worker.submit("late", "x", held(gate), watch.deliver("late"))
    gate.set()
    watch.wait("t", *map(str, range(7)))

    def slow() -> Iterator[int]:
        while True:
            Event().wait(0.01)
            yield 0

    worker.submit("a", "x", slow, watch.deliver("slow"), seconds=0.05)
    watch.wait("slow")
    outcome, message = watch.of("slow")[-1]
    assert outcome == "error" and "longer than" in message
