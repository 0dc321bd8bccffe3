"""The pool of Ray workers: starts workers, gives them parts, and replaces those that die."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from steerlens.errors import ModelError, SteerlensError
from steerlens.sweep.job import Job
from steerlens.sweep.ray.cluster import Room, Workers
from steerlens.sweep.ray.parts import PartResult, SweepPart
from steerlens.sweep.ray.worker import PartWorker
from steerlens.sweep.survey import saes_on
from steerlens.zoo import Pair

_AHEAD = 2
"""Parts that a worker has at a time: one running and one waiting."""

TRIES = 3
"""Deaths of workers on one part, or in a row during the start, after which the sweep gives up."""

_BEAT_SECONDS = 1.0
"""Seconds between events while no part comes back."""

_NOT_SENT = ("encoder", "decoder", "pictures", "traces", "survey")
"""Fields of a job that are not sent to every worker: workers load the models, and pictures travel with parts."""


class WorkerPool:
    """Ray actors and the parts that each is working on.

    Args:
        ray: the library, connected.
        workers: CPU cores of each worker.
        room: GPUs of each worker.
        load: loads the pair on a worker's machine.
        job: the job; its models, pictures and traces are not sent.
        count: number of workers to start.

    Attributes:
        cause: exception of the last worker that died, or None.
    """

    def __init__(self, ray: Any, workers: Workers, room: Room, load: Callable[[], Pair], job: Job, count: int) -> None:
        self._ray = ray
        sent = {field.name: getattr(job, field.name) for field in fields(Job) if field.name not in _NOT_SENT}
        # A worker may have no GPU.
        sent["directions"] = saes_on(job.directions, "cpu")
        self._setup = ray.put((load, sent))
        self._options = {"num_cpus": workers.cpus, "num_gpus": room.gpus, "max_restarts": 0}
        self._threads, self._cached = workers.cpus, job.traces is not None
        self._starting: dict[Any, Any] = {}
        self._in_hand: dict[Any, int] = {}
        self._batches: dict[Any, int] = {}
        self._under_way: dict[Any, tuple[Any, SweepPart]] = {}
        self._failed_starts = 0
        self.cause: Exception | None = None
        for _ in range(count):
            self._start_worker()

    def _start_worker(self) -> None:
        actor = self._ray.remote(_RayWorker).options(**self._options).remote()
        self._starting[actor.start.remote(self._setup, self._threads, self._cached)] = actor

    def dismiss(self) -> None:
        """Kills all workers; a cluster that was running before keeps running."""
        for actor in (*self._in_hand, *self._starting.values()):
            self._ray.kill(actor)

    @property
    def starting(self) -> int:
        """Number of workers that have not loaded their models yet."""
        return len(self._starting)

    @property
    def size(self) -> int:
        """Number of workers, including those that are starting."""
        return len(self._starting) + len(self._in_hand)

    @property
    def has_room(self) -> bool:
        """True if a started worker can take another part."""
        return bool(self._in_hand) and self._in_hand[self._least_busy] < _AHEAD

    @property
    def batch(self) -> int:
        """Number of pictures that the worker of the next part decodes at once."""
        return self._batches[self._least_busy]

    @property
    def _least_busy(self) -> Any:
        return min(self._in_hand, key=lambda actor: self._in_hand[actor])

    def give(self, part: SweepPart) -> None:
        """Gives a part to the worker with the fewest parts."""
        actor = self._least_busy
        self._in_hand[actor] += 1
        self._under_way[actor.do.remote(part)] = (actor, part)

    def next(self) -> tuple[SweepPart, PartResult | None] | None:
        """Waits up to a second for a part, and returns it with its result, which is None if its worker died.

        Returns None instead of a pair if no part came back: a worker has started, or nothing has happened.

        Raises:
            ModelError: if workers cannot start.
            SteerlensError: if a worker raised it.
        """
        ready, _ = self._ray.wait([*self._starting, *self._under_way], num_returns=1, timeout=_BEAT_SECONDS)
        if not ready:
            return None
        (reference,) = ready
        if reference in self._starting:
            self._record_start(reference)
            return None
        actor, part = self._under_way.pop(reference)
        errors = self._ray.exceptions
        try:
            result: PartResult | SteerlensError = self._ray.get(reference)
        except errors.RayTaskError:  # raised by the worker's own code, which would raise it again
            raise
        except errors.RayError as error:  # the worker, its machine or its result is lost, or memory ran out there
            self.cause = error
            if actor in self._in_hand:
                del self._in_hand[actor]
                self._ray.kill(actor)  # an actor that is merely unreachable must not come back
                self._start_worker()
            return part, None
        if isinstance(result, SteerlensError):
            raise result
        if actor in self._in_hand:
            self._in_hand[actor] -= 1
            self._batches[actor] = result.batch
        return part, result

    def _record_start(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        errors = self._ray.exceptions
        try:
            batch: int | SteerlensError = self._ray.get(reference)
        except errors.RayTaskError as error:
            raise ModelError(f"a worker cannot start: {last_line(error)}.") from error
        except errors.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= TRIES:
                raise ModelError(
                    f"workers died {TRIES} times in a row while starting: {last_line(error)}. Every machine needs "
                    "steerlens with the same packages, and enough memory for the models."
                ) from error
            self._start_worker()
            return
        if isinstance(batch, SteerlensError):
            raise batch
        self._failed_starts = 0
        self._in_hand[actor], self._batches[actor] = 0, batch


class _RayWorker:
    """Actor that gets its job from Ray's object store, where all workers share one copy."""

    def __init__(self) -> None:
        self._worker: PartWorker | None = None

    def start(
        self, setup: tuple[Callable[[], Pair], Mapping[str, Any]], threads: int, cached: bool
    ) -> int | SteerlensError:
        """Loads the models; returns the number of pictures decoded at once, or the error for the caller to raise."""
        try:
            self._worker = PartWorker(*setup, threads, cached=cached)
        except SteerlensError as error:  # raised here, Ray would wrap it in its own exception
            return error
        return self._worker.batch.size

    def do(self, part: SweepPart) -> PartResult | SteerlensError:
        """Computes a part; returns its result, or the error for the caller to raise."""
        if self._worker is None:
            return ModelError("a worker got a part before it had loaded its models.")
        try:
            return self._worker.do(part)
        except SteerlensError as error:
            return error


def last_line(error: Exception | None) -> str:
    """Last line of an exception's message; Ray puts whole tracebacks before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].rstrip(".")
