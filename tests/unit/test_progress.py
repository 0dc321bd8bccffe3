"""Progress: one event, and one way to run a loop to its end."""

from collections.abc import Generator

import pytest

from steerlens.progress import Progress, part_of, run_to_end


def loop(items: int, closed: list[bool]) -> Generator[Progress, None, str]:
    try:
        for done in range(1, items + 1):
            yield Progress("inner", done, items, "pictures", payload=f"item {done}")
    finally:
        closed.append(True)
    return "result"


def test_a_loop_runs_to_its_end_and_gives_its_result() -> None:
    told, closed = list[Progress](), list[bool]()
    assert run_to_end(loop(3, closed), told.append) == "result"
    assert [(event.done, event.total, event.payload) for event in told] == [
        (1, 3, "item 1"),
        (2, 3, "item 2"),
        (3, 3, "item 3"),
    ]
    assert run_to_end(loop(0, closed)) == "result"


def test_a_loop_is_closed_when_whoever_follows_it_raises() -> None:
    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    closed = list[bool]()
    with pytest.raises(KeyboardInterrupt):
        run_to_end(loop(3, closed), stop)
    assert closed == [True]


def test_a_part_counts_on_from_what_was_done_before_it_and_keeps_payloads() -> None:
    told = list[Progress]()
    assert run_to_end(part_of(loop(2, []), "outer", 10, 20, "passes", scale=5), told.append) == "result"
    assert [(event.stage, event.done, event.total, event.unit) for event in told] == [
        ("outer", 15, 20, "passes"),
        ("outer", 20, 20, "passes"),
    ]
    assert told[1].payload == "item 2"
    assert {event.unit for event in part_of(loop(2, []), "outer", 0, 2)} == {"pictures"}
