"""Progress of long loops: one type of event for command lines, notebooks and apps.

A long loop is a generator that yields `Progress` and returns its result. It may be stopped after any event; results
stored until then are kept.
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
        stage: name of the stage, in a word or two.
        done: finished items of the stage; an unfinished item counts by its finished share.
        total: items of the stage; it may change while the loop runs.
        unit: name of an item, in the plural; empty if the stage is not counted in items.
        payload: result of this step, such as a decoded batch or the cells of a sweep; usually None.
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
        before: finished items of the larger loop when the inner loop began.
        total: items of the larger loop.
        unit: name of an item; None keeps the inner loop's.
        scale: items of the larger loop for each item of the inner loop.
    """
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        inner = event.unit if unit is None else unit
        yield replace(event, stage=stage, done=before + scale * event.done, total=total, unit=inner)
