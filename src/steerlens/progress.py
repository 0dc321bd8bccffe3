"""Progress of long loops: one event for the bar of a command line, a notebook and an app alike.

A long loop is a generator that yields `Progress` and returns its result. It may stop after any event; what it stored
until then is kept.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class Progress:
    """One step of a long loop.

    Attributes:
        stage: what is being done, in a word or two.
        done: items of the stage that are done; unfinished items count by the share of them that is done.
        total: items of the stage; it may change while the loop runs.
        unit: what an item is, in the plural; empty where the stage is not counted in items.
        payload: what this step finished, such as a decoded batch or the cells of a sweep; mostly None.
    """

    stage: str
    done: float
    total: float
    unit: str = ""
    payload: object = None


def run_to_end(
    events: Generator[Progress, None, _Result], on_progress: Callable[[Progress], object] | None = None
) -> _Result:
    """Runs a loop to its end and returns its result.

    Args:
        events: the loop; it is closed if `on_progress` raises.
        on_progress: called with every event.
    """
    with closing(events):
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                return end.value
            if on_progress is not None:
                on_progress(event)


def part_of(
    events: Generator[Progress, None, _Result],
    stage: str,
    before: float,
    total: float,
    unit: str | None = None,
    *,
    scale: float = 1.0,
) -> Generator[Progress, None, _Result]:
    """Relays a loop as one part of a larger one, and returns its result.

    Args:
        events: the inner loop.
        stage: name of the larger loop's stage.
        before: items of it that were done when the inner loop began.
        total: items of it.
        unit: what an item is; None keeps the inner loop's word.
        scale: items of the larger loop for each item of the inner one.
    """
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        inner = event.unit if unit is None else unit
        yield replace(event, stage=stage, done=before + scale * event.done, total=total, unit=inner)
