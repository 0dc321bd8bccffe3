"""The pool of Ray workers: who is starting, who has which parts, and who died."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from steerlens.errors import ModelError, SteerlensError
from steerlens.sweep.job import Job
from steerlens.sweep.ray.cluster import Room, Workers
from steerlens.sweep.ray.parts import PartResult, SweepPart
from steerlens.sweep.ray.worker import PartWorker
from steerlens.zoo.pair import Pair

_AHEAD = 2
"""Parts that a worker has in hand: one under way and one waiting."""

TRIES = 3
"""Deaths of workers over one part, or in a row while they start, after which the sweep gives up."""

_BEAT_SECONDS = 1.0
"""Seconds between events while no part comes back."""

_LEFT_BEHIND = ("encoder", "decoder", "pictures", "traces")
"""Fields of a job that do not travel to every worker: models are loaded there, and pictures go with their parts."""


class WorkerPool:
    """Ray actors with the parts that each has in hand.

    Args:
        ray: the library, connected.
        workers: cores of each.
        room: GPUs of each.
        load: gives the pair on a worker's machine.
        job: the job; models, pictures and traces do not travel with it.
        count: workers to start.

    Attributes:
        cause: exception of the last worker that died, or None.
    """

    def __init__(self, ray: Any, workers: Workers, room: Room, load: Callable[[], Pair], job: Job, count: int) -> None:
        self._ray = ray
        rest = {field.name: getattr(job, field.name) for field in fields(Job) if field.name not in _LEFT_BEHIND}
        self._given = ray.put((load, rest))
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
        self._starting[actor.start.remote(self._given, self._threads, self._cached)] = actor

    def dismiss(self) -> None:
        """Kills all workers; a cluster that was running before goes on without them."""
        for actor in (*self._in_hand, *self._starting.values()):
            self._ray.kill(actor)

    @property
    def starting(self) -> int:
        """Number of workers that have not answered yet."""
        return len(self._starting)

    @property
    def size(self) -> int:
        """Number of workers, those that are starting included."""
        return len(self._starting) + len(self._in_hand)

    @property
    def has_room(self) -> bool:
        """Whether a worker that has answered can take another part."""
        return bool(self._in_hand) and self._in_hand[self._least_busy] < _AHEAD

    @property
    def batch(self) -> int:
        """Pictures that the worker which gets the next part decodes at once."""
        return self._batches[self._least_busy]

    @property
    def _least_busy(self) -> Any:
        return min(self._in_hand, key=lambda actor: self._in_hand[actor])

    def give(self, part: SweepPart) -> None:
        """Gives a part to the worker with the fewest in hand."""
        actor = self._least_busy
        self._in_hand[actor] += 1
        self._under_way[actor.do.remote(part)] = (actor, part)

    def next(self) -> tuple[SweepPart, PartResult | None] | None:
        """Waits a while for a part, and returns it with its result; the result is None if its worker died.

        Returns None alone if no part came back: a worker has answered, or nothing has happened.

        Raises:
            ModelError: if workers cannot start.
            SteerlensError: as the worker did.
        """
        ready, _ = self._ray.wait([*self._starting, *self._under_way], num_returns=1, timeout=_BEAT_SECONDS)
        if not ready:
            return None
        (reference,) = ready
        if reference in self._starting:
            self._answered(reference)
            return None
        actor, part = self._under_way.pop(reference)
        errors = self._ray.exceptions
        try:
            result: PartResult | SteerlensError = self._ray.get(reference)
        except errors.RayTaskError:  # what the worker's own code raised, and would raise again
            raise
        except errors.RayError as error:  # a worker, its machine or what it sent is gone, or memory ran out there
            self.cause = error
            if actor in self._in_hand:
                del self._in_hand[actor]
                self._ray.kill(actor)  # an actor that is only out of reach must not come back
                self._start_worker()
            return part, None
        if isinstance(result, SteerlensError):
            raise result
        if actor in self._in_hand:
            self._in_hand[actor] -= 1
            self._batches[actor] = result.batch
        return part, result

    def _answered(self, reference: Any) -> None:
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
                    f"workers died {TRIES} times in a row while they started: {last_line(error)}. Every machine "
                    "needs steerlens with the same packages, and memory for the models."
                ) from error
            self._start_worker()
            return
        if isinstance(batch, SteerlensError):
            raise batch
        self._failed_starts = 0
        self._in_hand[actor], self._batches[actor] = 0, batch


class _RayWorker:
    """Actor whose models and job come from Ray's object store, which holds them once for all."""

    def __init__(self) -> None:
        self._worker: PartWorker | None = None

    def start(
        self, given: tuple[Callable[[], Pair], Mapping[str, Any]], threads: int, cached: bool
    ) -> int | SteerlensError:
        """Loads the models; returns the number of pictures decoded at once, or the error to raise at the caller."""
        try:
            self._worker = PartWorker(*given, threads, cached=cached)
        except SteerlensError as error:  # Ray would wrap it in a report of a failed task
            return error
        return self._worker.batch.size

    def do(self, part: SweepPart) -> PartResult | SteerlensError:
        """Does a part; returns its result, or the error to raise at the caller as if the work had been done there."""
        if self._worker is None:
            return ModelError("a worker was given work before it had its models.")
        try:
            return self._worker.do(part)
        except SteerlensError as error:
            return error


def last_line(error: Exception | None) -> str:
    """The last line of an exception's message; Ray puts whole tracebacks before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].rstrip(".")
