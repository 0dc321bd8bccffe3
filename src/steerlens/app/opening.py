"""Opening: models are loaded on the worker while the page answers already, and say how far they are."""

import gc
import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition
from typing import TYPE_CHECKING, Any

from steerlens.errors import SteerlensError

if TYPE_CHECKING:
    from steerlens.app.explorer import Explorer

_LOG = logging.getLogger(__name__)


@contextmanager
def collection_paused() -> Generator[None]:
    """Pauses the search for unreachable cycles while libraries are imported, where it takes a fifth of the time.

    Libraries and models stay until the process ends, so later searches leave out all that is there by then, less what
    loading has left behind.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.collect()
        gc.freeze()
    finally:
        gc.enable()


@dataclass(eq=False)
class Opening:
    """How far the explorer is; read by the page, written by the worker. Safe between threads.

    Attributes:
        stages: descriptions of the steps until it is ready.
    """

    stages: Sequence[str] = ("libraries", "models", "first picture")
    _change: Condition = field(default_factory=Condition, repr=False)
    _stage: int = 0
    _error: str = ""
    _explorer: "Explorer | None" = None
    _started: float = field(default_factory=time.monotonic)

    def reach(self, stage: int) -> None:
        """Says that a stage has begun."""
        with self._change:
            self._stage = stage
            self._change.notify_all()

    def run(self, open_explorer: "Callable[[Opening], Explorer]") -> None:
        """Opens the explorer, or records in words why that failed."""
        explorer, message = None, ""
        try:
            explorer = open_explorer(self)
        except SteerlensError as error:
            message = str(error)
        except Exception as error:
            _LOG.exception("the explorer could not be opened")
            message = f"unexpected {type(error).__name__} while the model was opened; the server's log says more."
        with self._change:
            self._explorer, self._error = explorer, message
            self._change.notify_all()

    @property
    def explorer(self) -> "Explorer | None":
        """The explorer, once it is ready."""
        with self._change:
            return self._explorer

    @property
    def error(self) -> str:
        """Why it could not be opened; empty if it could, or is not known yet."""
        with self._change:
            return self._error

    def wait(self, seconds: float) -> bool:
        """Waits until it is ready or failed; returns whether it is ready."""
        with self._change:
            self._change.wait_for(lambda: self._explorer is not None or bool(self._error), seconds)
            return self._explorer is not None

    def state(self) -> dict[str, Any]:
        """How far it is, as JSON values."""
        with self._change:
            return {
                "ready": self._explorer is not None,
                "error": self._error,
                "stage": self.stages[min(self._stage, len(self.stages) - 1)],
                "done": self._stage,
                "total": len(self.stages),
                "seconds": round(time.monotonic() - self._started, 1),
            }
