"""The progress bar of a sweep that Python code starts, in notebooks and terminals."""

import sys
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from steerlens.progress import Progress


@contextmanager
def shown(progress: Callable[[Progress], object] | bool | None) -> "Generator[Callable[[Progress], object] | None]":
    """Returns what to call with the events of a sweep.

    Args:
        progress: a function, which is returned as it is; True for a bar, False for nothing; None for a bar where
            somebody watches: in a notebook or a terminal.
    """
    if progress is None:
        progress = "ipykernel" in sys.modules or sys.stderr.isatty()
    if not isinstance(progress, bool):
        yield progress
    elif progress:
        with _bar() as bar:
            yield _Shown(bar)
    else:
        yield None


def _bar() -> Any:
    with warnings.catch_warnings():
        # Without ipywidgets tqdm falls back to text, which is fine here, and warns about it.
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

        return tqdm(unit="picture", dynamic_ncols=True, leave=False)


class _Shown:
    """Shows events in a bar: decoded pictures, their total, and what happens now.

    Args:
        bar: a bar of tqdm.
    """

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def __call__(self, event: Progress) -> None:
        if event.stage in ("decoding", "re-encoding"):
            self._bar.total = event.total
            self._bar.n = max(self._bar.n, round(event.done, 1))
            self._bar.set_description(event.stage, refresh=False)
        else:
            self._bar.set_description(f"{event.stage} {event.done:.0f} of {event.total:.0f}", refresh=False)
        self._bar.update(0)
        self._bar.refresh()
