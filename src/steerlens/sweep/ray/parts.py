"""How a sweep is cut into parts for workers elsewhere, and what a worker does with one.

Where all cells are decoded they are cut as they are planned. Where a choice is, a picture is surveyed first, by one
worker and once: it is traced, read and ranked, and the cells that were chosen are cut, of several pictures together.
"""

import math
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from steerlens.atlas.atlas import Reading
from steerlens.atlas.plan import Cell, Plan
from steerlens.errors import ModelError
from steerlens.images import Picture
from steerlens.runs.difference import first_difference
from steerlens.sweep.engine import FinishedCells, batch_size, run, survey
from steerlens.sweep.identity import models_identity
from steerlens.sweep.job import Job
from steerlens.sweep.selection import Selection
from steerlens.sweep.trace_cache import trace_cache
from steerlens.zoo.pair import Pair

BATCHES_OF_A_PART = 2
"""Batches in a part: enough that tracing the picture again for it costs little, few enough to lose little."""


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a sweep, with the pictures that it needs.

    Attributes:
        pictures: by id.
        unread: ids of those whose reading is asked for.
        cells: what is decoded.
        surveys: whether the one picture is ranked, and nothing decoded.
    """

    pictures: Mapping[str, Picture]
    unread: frozenset[str]
    cells: tuple[Cell, ...] = ()
    surveys: bool = False


@dataclass(frozen=True, eq=False)
class Done:
    """What became of a part.

    Attributes:
        finished: readings and cells, in the order in which they were finished.
        batch: pictures that this worker decodes at once by now.
        chosen: of a survey, the cells that are decoded.
    """

    finished: tuple[Reading | FinishedCells, ...]
    batch: int
    chosen: tuple[Cell, ...] = ()


class Work:
    """What is left of a job, cut into parts as they are asked for.

    Attributes:
        total: cells to be decoded; at most, until all pictures have been ranked.
        decoded: cells that have been.
    """

    def __init__(self, job: Job, finished: frozenset[str], read: frozenset[str]) -> None:
        self._job, self._finished, self._read = job, finished, read
        self._chooses = job.selection.rule != "all"
        self._held = Counter(key.partition("|")[0] for key in finished)
        self.total = job.selection.at_most(job.plan.cells) - sum(self._held[id] for id in job.plan.pictures)
        self.decoded = 0
        self._pictures = deque(id for id, cells in job.plan.by_picture() if self._is_left(id, cells))
        self._cells = deque[Cell]()
        self._unread = deque[str]()
        self._again = deque[Part]()
        self._out = set[Part]()

    def _is_left(self, id: str, cells: tuple[Cell, ...]) -> bool:
        return id not in self._read or self._held[id] < self._job.selection.at_most(cells)

    @property
    def is_left(self) -> bool:
        """Whether any part has not been finished."""
        return bool(self._pictures or self._cells or self._unread or self._again or self._out)

    def part(self, batch: int, workers: int) -> Part | None:
        """The next part, or None if there is none now: what is chosen of pictures that are out is not known yet.

        Args:
            batch: pictures that the worker who gets it decodes at once.
            workers: how many share what is left.
        """
        part = self._again.popleft() if self._again else self._cut(BATCHES_OF_A_PART * batch, batch, workers)
        if part is not None:
            self._out.add(part)
        return part

    def lost(self, part: Part) -> None:
        """Takes a part back whose worker died."""
        self._out.discard(part)
        self._again.appendleft(part)

    def finish(self, part: Part, done: Done) -> None:
        """Takes note of a part that is finished."""
        self._out.discard(part)
        self.decoded += len(part.cells)
        if part.surveys:
            (id,) = part.pictures
            self.total -= self._job.selection.at_most(self._job.plan.of(id)) - len(done.chosen)
            self._cells += [cell for cell in done.chosen if cell.key not in self._finished]

    def _cut(self, size: int, batch: int, workers: int) -> Part | None:
        while self._pictures and len(self._cells) < size:
            id = self._pictures.popleft()
            unread = [] if id in self._read else [id]
            cells = self._job.plan.of(id)
            if self._chooses and self._held[id] < self._job.selection.at_most(cells):
                return Part(self._with_pictures(unread, [id]), frozenset(unread), surveys=True)
            self._unread += unread
            if not self._chooses:
                self._cells += [cell for cell in cells if cell.key not in self._finished]
        if not self._pictures:
            if len(self._cells) < size and any(part.surveys for part in self._out):
                return None
            # The last cells are shared out, in parts that are still worth a batch.
            size = min(size, max(math.ceil(len(self._cells) / workers), math.ceil(batch / 4)))
        taken = tuple(self._cells.popleft() for _ in range(min(size, len(self._cells))))
        ids = dict.fromkeys(cell.picture for cell in taken)
        # Pictures of which nothing is to be decoded come last, one by one.
        unread = [id for id in self._unread if id in ids] if taken else [*self._unread][:1]
        self._unread = deque(id for id in self._unread if id not in unread)
        if not ids and not unread:
            return None
        return Part(self._with_pictures(unread, ids), frozenset(unread), taken)

    def _with_pictures(self, *ids: Iterable[str]) -> dict[str, Picture]:
        return {id: self._job.pictures[id] for some in ids for id in some}


class Worker:
    """Holds a pair and does parts of a job with it.

    Args:
        load: gives the pair, on the worker's own machine.
        rest: the job without its models, pictures and traces.
        cached: whether traces are kept from run to run, on that machine.
        threads: of the worker.

    Raises:
        ModelError: if the pair has other weights, or another precision, than the job's.
    """

    def __init__(
        self, load: Callable[[], Pair], rest: Mapping[str, Any], threads: int, *, cached: bool = False
    ) -> None:
        torch.set_num_threads(threads)
        pair = load()
        _check_models(rest.get("models", {}), pair)
        traces = trace_cache(pair) if cached else None
        self.job = Job(encoder=pair.encoder, decoder=pair.decoder, pictures={}, traces=traces, **rest)
        self.batch = batch_size(self.job)

    def do(self, part: Part) -> Done:
        """Does one part: its readings, its finished cells, and the cells that were selected."""
        job = replace(self.job, pictures=part.pictures)
        if part.surveys:
            (id,) = part.pictures
            reading, chosen = survey(job, id, read=id not in part.unread)
            return Done(() if reading is None else (reading,), self.batch.size, chosen)
        cells, others = part.cells, frozenset[str]()
        if job.selection.rule == "all" or not cells:
            # Whole pictures are planned, and what is not of this part is called finished: labels are read of all sites.
            cells = tuple(cell for id in part.pictures for cell in job.plan.of(id))
            others = frozenset(cell.key for cell in cells) - {cell.key for cell in part.cells}
        plan = Plan(cells, job.plan.strength, job.plan.seeds, job.plan.n_layers)
        job = replace(job, plan=plan, selection=Selection())
        payloads = (event.payload for event in run(job, others, frozenset(part.pictures) - part.unread, self.batch))
        return Done(tuple(one for one in payloads if isinstance(one, Reading | FinishedCells)), self.batch.size)


def _check_models(expected: Mapping[str, Any], pair: Pair) -> None:
    found = first_difference(expected, models_identity(pair)) if expected else None
    if found is not None:
        name, here, there = found
        raise ModelError(
            f"the worker on {socket.gethostname()} has other models than this machine: {name} is {there} there, and "
            f"{here} here. Every machine needs the same files, and the same precision: name it (--dtype)."
        )
