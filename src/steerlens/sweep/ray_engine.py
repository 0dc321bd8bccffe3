"""The same plan on Ray: workers that hold the model once, small parts of work, results stored by the caller alone.

A part is a few cells of one picture. Workers are actors, each with a pair of its own; they get two parts ahead, so that
none waits for the next. A worker or node that dies costs the parts it had in hand, which go to another one. Every
cell reaches the store from here, once, whatever was computed twice.

References: P. Moritz et al., "Ray: a Distributed Framework for Emerging AI Applications", arXiv 1712.05889.
"""

import importlib.util
import os
import socket
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from steerlens.decoders.batches import BatchSize
from steerlens.errors import ModelError, SteerlensError, UsageError
from steerlens.sweep.engine import Advanced, CellsDone, Event, Job, ReadingDone, run
from steerlens.zoo.pair import Pair

_AHEAD = 2
"""Parts that a worker has in hand: one under way and one waiting."""

_TRIES = 3
"""Times that a part is given out before the sweep is given up: a part that kills every worker would go on for ever."""

_NO_RAY = "the Ray engine needs an optional package: pip install 'steerlens[ray]'."

_ANSWER_SECONDS = 10.0
"""Seconds in which a cluster's head has to answer."""

BATCHES_OF_A_PART = 2
"""Batches in a part: enough that tracing the picture again for it costs little, few enough to lose little."""


@dataclass(frozen=True)
class Workers:
    """Who carries a sweep out.

    Attributes:
        address: of a running cluster, `auto` for the one of this machine; None starts Ray here, for this sweep alone.
        count: workers; None for one a GPU, or one a CPU core where there is none.
        cpus: CPU cores of each, which are its threads too.
        gpus: GPUs of each, which may be a share of one; None for one where the cluster has any.
    """

    address: str | None = None
    count: int | None = None
    cpus: int = 1
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise UsageError(f"at least one worker is needed, not {self.count}.")
        if self.cpus < 1 or (self.gpus is not None and self.gpus < 0):
            raise UsageError("a worker has at least one CPU core, and no negative share of a GPU.")


@dataclass(frozen=True)
class Part:
    """A part of a sweep.

    Attributes:
        picture: id of the input.
        left: keys of the cells that belong to it.
    """

    picture: str
    left: frozenset[str]


def parts_of(job: Job, finished: frozenset[str], read: frozenset[str], size: int) -> list[Part]:
    """The parts of a job, of at most `size` cells each; an input that is only to be read is a part without cells."""
    parts: list[Part] = []
    for picture, cells in job.plan.by_picture():
        keys = [cell.key for cell in cells if cell.key not in finished]
        chunks = [keys[start : start + size] for start in range(0, len(keys), size)]
        if not chunks and picture not in read:
            chunks = [[]]
        parts += [Part(picture, frozenset(chunk)) for chunk in chunks]
    return parts


class Worker:
    """Holds a pair and does parts of a job with it; Ray makes an actor of it.

    Args:
        load: gives the pair, on the worker's own machine.
        rest: the job without its models.
        threads: of the worker.
    """

    def __init__(self, load: Callable[[], Pair], rest: Mapping[str, Any], threads: int) -> None:
        torch.set_num_threads(threads)
        pair = load()
        self.job = Job(encoder=pair.encoder, decoder=pair.decoder, **rest)

    def do(self, part: Part) -> list[Event]:
        """What the local engine would tell of these cells: the reading and the finished cells."""
        plan = self.job.plan
        # The whole picture is planned, and what is not of this part is called finished: a choice of what is decoded
        # ranks all cells of a picture, whoever decodes them.
        cells = tuple(cell for cell in plan.cells if cell.picture == part.picture)
        others = frozenset(cell.key for cell in cells) - part.left
        job = replace(self.job, plan=replace(plan, cells=cells))
        return [event for event in run(job, others) if not isinstance(event, Advanced)]


def run_on_ray(
    job: Job,
    workers: Workers,
    load: Callable[[], Pair],
    finished: frozenset[str] = frozenset(),
    read: frozenset[str] = frozenset(),
) -> Iterator[Event]:
    """Carries a job out on Ray, like `steerlens.sweep.engine.run` does here.

    Args:
        job: what to do.
        workers: who does it.
        load: gives the pair on a worker's machine; it travels there by pickling.
        finished: keys of cells that are left out.
        read: ids of pictures whose reading is there already.

    Raises:
        UsageError: if Ray is not installed, or there is no cluster at the address.
        ModelError: if workers keep dying over one part.
        SteerlensError: as the local engine.
    """
    waiting = deque(parts_of(job, finished, read, BATCHES_OF_A_PART * BatchSize(job.decoder, job.options).size))
    if not waiting:
        return
    with _cluster(workers) as ray:
        crew = _Crew(ray, workers, load, job, len(waiting))
        try:
            yield from _follow(crew, waiting, job, finished, read)
        finally:
            crew.dismiss()


def _follow(
    crew: "_Crew", waiting: deque[Part], job: Job, finished: frozenset[str], read: frozenset[str]
) -> Iterator[Event]:
    known, done = set(read), set(finished)
    total = job.choice.at_most(job.plan.cells) - sum(cell.key in finished for cell in job.plan.cells)
    tries: dict[Part, int] = {}
    while waiting or crew.busy:
        while waiting and crew.has_room:
            part = waiting.popleft()
            tries[part] = tries.get(part, 0) + 1
            if tries[part] > _TRIES:
                raise ModelError(
                    f"workers died {_TRIES} times over one part of picture {part.picture}; what was finished is kept. "
                    "Most often memory ran out: give a smaller --batch-size, or fewer workers on each machine."
                )
            crew.give(part)
        part, events = crew.next()
        if events is None:
            waiting.appendleft(part)
            continue
        for event in events:
            if isinstance(event, ReadingDone) and event.reading.id not in known:
                known.add(event.reading.id)
                yield event
            elif isinstance(event, CellsDone):
                fresh = tuple(result for result in event.results if result.cell.key not in done)
                done.update(result.cell.key for result in fresh)
                yield CellsDone(fresh)
        yield Advanced("decoding", len(done) - len(finished), total)


class _Crew:
    """The actors, and which part each has in hand."""

    def __init__(self, ray: Any, workers: Workers, load: Callable[[], Pair], job: Job, parts: int) -> None:
        self._ray = ray
        rest = {one.name: getattr(job, one.name) for one in fields(Job) if one.name not in ("encoder", "decoder")}
        self._given = ray.put((load, {**rest, "traces": None}))
        resources = ray.cluster_resources()
        gpus = (1.0 if resources.get("GPU") else 0.0) if workers.gpus is None else workers.gpus
        if gpus > resources.get("GPU", 0):
            raise UsageError(f"each worker is to have {gpus:g} GPUs, and the cluster has {resources.get('GPU', 0):g}.")
        most = resources["GPU"] // gpus if gpus else resources.get("CPU", 1) // workers.cpus
        count = max(1, min(parts, int(most) if workers.count is None else workers.count))
        self._options = {"num_cpus": workers.cpus, "num_gpus": gpus, "max_restarts": 0}
        self._threads = workers.cpus
        self._hands: dict[Any, int] = {}
        self._parts: dict[Any, tuple[Any, Part]] = {}
        for _ in range(count):
            self._hire()

    def _hire(self) -> None:
        actor = self._ray.remote(_Actor).options(**self._options).remote(self._given, self._threads)
        self._hands[actor] = 0

    def dismiss(self) -> None:
        """Ends all workers, whatever they are at; a cluster that was here before goes on without them."""
        for actor in self._hands:
            self._ray.kill(actor)

    @property
    def busy(self) -> bool:
        """Whether any part is out."""
        return bool(self._parts)

    @property
    def has_room(self) -> bool:
        """Whether a worker can take another part."""
        return min(self._hands.values()) < _AHEAD

    def give(self, part: Part) -> None:
        """Gives a part to the worker with the fewest in hand."""
        actor = min(self._hands, key=lambda one: self._hands[one])
        self._hands[actor] += 1
        self._parts[actor.do.remote(part)] = (actor, part)

    def next(self) -> tuple[Part, Sequence[Event] | None]:
        """Waits for a part; None in place of its events if its worker died."""
        (ready,), _ = self._ray.wait(list(self._parts), num_returns=1)
        actor, part = self._parts.pop(ready)
        errors = self._ray.exceptions
        try:
            events = self._ray.get(ready)
        except (errors.RayActorError, errors.WorkerCrashedError, errors.ObjectLostError, errors.NodeDiedError):
            if actor in self._hands:
                del self._hands[actor]
                self._hire()
            return part, None
        if isinstance(events, SteerlensError):
            raise events
        if actor in self._hands:
            self._hands[actor] -= 1
        return part, events


class _Actor:
    """A worker whose models and job come from Ray's object store, where they lie once for all."""

    def __init__(self, given: tuple[Callable[[], Pair], Mapping[str, Any]], threads: int) -> None:
        self._worker: Worker | SteerlensError
        try:
            self._worker = Worker(*given, threads)
        except SteerlensError as error:  # Ray would tell of a dead actor, and not why
            self._worker = error

    def do(self, part: Part) -> list[Event] | SteerlensError:
        """What `Worker.do` gives, or the error to raise where the work was given out, as if it had been done there."""
        if isinstance(self._worker, SteerlensError):
            return self._worker
        try:
            return self._worker.do(part)
        except SteerlensError as error:
            return error


def check_cluster(workers: Workers) -> None:
    """Makes sure, before anything is written, that Ray is installed and that something answers at the address.

    Raises:
        UsageError: if not.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(_NO_RAY)
    if workers.address is None or ":" not in workers.address:
        return
    host, _, port = workers.address.rpartition("//")[2].rpartition(":")
    try:
        # Ray itself would try for minutes before it gave up.
        socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UsageError(f"there is no Ray cluster at {workers.address}: {error}.") from None


@contextmanager
def _cluster(workers: Workers) -> Generator[Any]:
    """Ray itself, connected; started for this sweep alone if no cluster was named, and stopped after it."""
    try:
        import ray
    except ImportError:
        raise UsageError(_NO_RAY) from None
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "configure_logging": True}
    if workers.address is None:
        cores = max(os.cpu_count() or 1, workers.cpus * (workers.count or 1))
        options |= {"num_cpus": cores, "include_dashboard": False}
    else:
        options["address"] = workers.address
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UsageError(f"there is no Ray cluster at {workers.address or 'this machine'}: {reason}.") from error
    try:
        yield ray
    finally:
        ray.shutdown()
