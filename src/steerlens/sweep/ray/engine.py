"""The same plan on Ray: workers that hold the model once, small parts of work, results stored by the caller alone.

Workers are actors, each with a pair of its own; they get two parts ahead, so that none waits for the next, and none
before it has answered that its models are loaded and are those of the caller. A worker or node that dies costs the
parts it had in hand, which go to another one. Every cell reaches the store from here, once.

References: P. Moritz et al., "Ray: a Distributed Framework for Emerging AI Applications", arXiv 1712.05889.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from steerlens.decoders.batches import BatchSize
from steerlens.errors import ModelError, SteerlensError
from steerlens.progress import Progress
from steerlens.sweep.job import Job
from steerlens.sweep.ray.cluster import Room, Workers, room_for, running_cluster
from steerlens.sweep.ray.cluster import check_cluster as check_cluster
from steerlens.sweep.ray.parts import BATCHES_OF_A_PART as BATCHES_OF_A_PART
from steerlens.sweep.ray.parts import Done, Part, Work, Worker
from steerlens.zoo.pair import Pair

_AHEAD = 2
"""Parts that a worker has in hand: one under way and one waiting."""

_TRIES = 3
"""Times that a part is given out, and that workers may die in a row before one answers, until the sweep is given up."""

_BEAT_SECONDS = 1.0
"""How often progress is told while nothing comes back."""

_NOT_OF_THE_REST = ("encoder", "decoder", "pictures", "traces")
"""What of a job does not travel to every worker: models are loaded there, and pictures go with their parts."""


def run_on_ray(
    job: Job,
    workers: Workers,
    load: Callable[[], Pair],
    finished: frozenset[str] = frozenset(),
    read: frozenset[str] = frozenset(),
) -> Iterator[Progress]:
    """Carries a job out on Ray, like `steerlens.sweep.engine.run` does here.

    Args:
        job: what to do.
        workers: who does it.
        load: gives the pair on a worker's machine; it travels there by pickling.
        finished: keys of cells that are left out.
        read: ids of pictures whose reading is there already.

    Raises:
        UsageError: if Ray is not installed, there is no cluster at the address, or it has no room for the workers.
        ModelError: if workers cannot start, have other models, or keep dying over one part.
        SteerlensError: as the local engine.
    """
    work = Work(job, finished, read)
    if not work.is_left:
        return
    yield Progress("decoding", 0, work.total, "pictures")
    yield Progress("starting workers", 0, workers.count or 1, "workers")
    with running_cluster(workers) as ray:
        room = room_for(ray, workers)
        batches = math.ceil(work.total / BatchSize(job.decoder, job.options).size)
        crew = _Crew(ray, workers, room, load, job, min(room.workers, max(1, batches)))
        try:
            yield from _follow(crew, work)
        finally:
            crew.dismiss()


def _follow(crew: "_Crew", work: Work) -> Iterator[Progress]:
    tries: dict[Part, int] = {}
    while work.is_left:
        while crew.has_room and (part := work.part(crew.batch, crew.size)) is not None:
            tries[part] = tries.get(part, 0) + 1
            if tries[part] > _TRIES:
                names = ", ".join(picture.name for picture in part.pictures.values())
                raise ModelError(
                    f"workers died {_TRIES} times over one part of picture {names} ({_last_line(crew.cause)}); what "
                    "was finished is kept. Most often memory ran out: give a smaller --batch-size, or fewer workers "
                    "on each machine."
                ) from crew.cause
            crew.give(part)
        came = crew.next()
        if came is None:
            if crew.starting:
                yield Progress("starting workers", crew.size - crew.starting, crew.size, "workers")
            continue
        part, done = came
        if done is None:
            work.lost(part)
            continue
        tries.pop(part)
        work.finish(part, done)
        for payload in done.finished:
            yield Progress("decoding", work.decoded, work.total, "pictures", payload)
        yield Progress("decoding", work.decoded, work.total, "pictures")


class _Crew:
    """The actors, and which parts each has in hand.

    Attributes:
        cause: what was said of the last worker that died.
    """

    def __init__(self, ray: Any, workers: Workers, room: Room, load: Callable[[], Pair], job: Job, count: int) -> None:
        self._ray = ray
        rest = {one.name: getattr(job, one.name) for one in fields(Job) if one.name not in _NOT_OF_THE_REST}
        self._given = ray.put((load, rest))
        self._options = {"num_cpus": workers.cpus, "num_gpus": room.gpus, "max_restarts": 0}
        self._threads, self._cached = workers.cpus, job.traces is not None
        self._starting: dict[Any, Any] = {}
        self._hands: dict[Any, int] = {}
        self._batches: dict[Any, int] = {}
        self._parts: dict[Any, tuple[Any, Part]] = {}
        self._stillborn = 0
        self.cause: Exception | None = None
        for _ in range(count):
            self._hire()

    def _hire(self) -> None:
        actor = self._ray.remote(_Actor).options(**self._options).remote()
        self._starting[actor.start.remote(self._given, self._threads, self._cached)] = actor

    def dismiss(self) -> None:
        """Ends all workers, whatever they are at; a cluster that was here before goes on without them."""
        for actor in (*self._hands, *self._starting.values()):
            self._ray.kill(actor)

    @property
    def starting(self) -> int:
        """Workers that have not answered yet."""
        return len(self._starting)

    @property
    def size(self) -> int:
        """Workers, those that are starting among them."""
        return len(self._starting) + len(self._hands)

    @property
    def has_room(self) -> bool:
        """Whether a worker that has answered can take another part."""
        return bool(self._hands) and self._hands[self._freest] < _AHEAD

    @property
    def batch(self) -> int:
        """Pictures that the worker which gets the next part decodes at once."""
        return self._batches[self._freest]

    @property
    def _freest(self) -> Any:
        return min(self._hands, key=lambda one: self._hands[one])

    def give(self, part: Part) -> None:
        """Gives a part to the worker with the fewest in hand."""
        actor = self._freest
        self._hands[actor] += 1
        self._parts[actor.do.remote(part)] = (actor, part)

    def next(self) -> tuple[Part, Done | None] | None:
        """Waits a while for a part; None in place of what became of it if its worker died.

        None for both if no part came back: a worker has answered, or nothing has happened.
        """
        ready, _ = self._ray.wait([*self._starting, *self._parts], num_returns=1, timeout=_BEAT_SECONDS)
        if not ready:
            return None
        (one,) = ready
        if one in self._starting:
            self._answered(one)
            return None
        actor, part = self._parts.pop(one)
        errors = self._ray.exceptions
        try:
            done: Done | SteerlensError = self._ray.get(one)
        except errors.RayTaskError:  # what the worker's own code raised, and would raise again
            raise
        except errors.RayError as error:  # a worker, its machine or what it sent is gone, or memory ran out there
            self.cause = error
            if actor in self._hands:
                del self._hands[actor]
                self._ray.kill(actor)  # one that is only out of reach must not come back and take another's place
                self._hire()
            return part, None
        if isinstance(done, SteerlensError):
            raise done
        if actor in self._hands:
            self._hands[actor] -= 1
            self._batches[actor] = done.batch
        return part, done

    def _answered(self, one: Any) -> None:
        actor = self._starting.pop(one)
        errors = self._ray.exceptions
        try:
            batch: int | SteerlensError = self._ray.get(one)
        except errors.RayTaskError as error:
            raise ModelError(f"a worker cannot start: {_last_line(error)}.") from error
        except errors.RayError as error:
            self._stillborn += 1
            if self._stillborn >= _TRIES:
                raise ModelError(
                    f"workers died {_TRIES} times in a row while they started: {_last_line(error)}. Every machine "
                    "needs steerlens with the same packages, and memory for the models."
                ) from error
            self._hire()
            return
        if isinstance(batch, SteerlensError):
            raise batch
        self._stillborn = 0
        self._hands[actor], self._batches[actor] = 0, batch


class _Actor:
    """A worker whose models and job come from Ray's object store, where they lie once for all."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def start(
        self, given: tuple[Callable[[], Pair], Mapping[str, Any]], threads: int, cached: bool
    ) -> int | SteerlensError:
        """Loads the models, and tells how many pictures are decoded at once; or the error to raise where it began."""
        try:
            self._worker = Worker(*given, threads, cached=cached)
        except SteerlensError as error:  # Ray would tell of a failed task, and not in one line why
            return error
        return self._worker.batch.size

    def do(self, part: Part) -> Done | SteerlensError:
        """What `Worker.do` gives, or the error to raise where the part was given out, as if it had been done there."""
        if self._worker is None:
            return ModelError("a worker was given work before it had its models.")
        try:
            return self._worker.do(part)
        except SteerlensError as error:
            return error


def _last_line(error: Exception | None) -> str:
    """What an exception says in the end: Ray puts whole tracebacks before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1].rstrip(".")
