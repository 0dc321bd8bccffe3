"""Training time: pauses do not count as training."""

from collections.abc import Iterable, Iterator

import pytest

from steerlens.training.clock import StepClock


def after(durations: Iterable[float], before: float = 0.0) -> StepClock:
    """A clock after steps of these durations."""

    def times() -> Iterator[float]:
        now = 100.0
        for duration in durations:
            yield now
            now += duration
            yield now
            now += 1000  # between steps nothing counts

    reading = times()
    clock = StepClock(before, now=lambda: next(reading))
    for _ in durations:
        clock.begin()
        clock.end()
    return clock


def test_steps_count_and_the_time_between_them_does_not() -> None:
    assert after([1.0, 2.0, 1.5]).seconds == pytest.approx(4.5)
    assert after([1.0], before=60).seconds == pytest.approx(61)


def test_a_pause_within_a_step_counts_as_ten_steps() -> None:
    steps = [1.0] * 20
    assert after([*steps, 7200.0, *steps]).seconds == pytest.approx(50)
    assert after([*steps, 8.0]).seconds == pytest.approx(28), "a busy machine is no pause"
    assert after([7200.0]).seconds == 60, "the first step, of which nothing is known"


def test_a_machine_that_becomes_slower_is_followed() -> None:
    clock = after([1.0] * 20 + [30.0] * 40)
    assert clock.seconds > 0.7 * (20 + 30 * 40)
