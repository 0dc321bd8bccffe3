"""Parts of a sweep for workers on other machines, and the queue of parts.

If all cells are decoded, parts follow the order of the plan. With a selection, one worker first surveys each picture:
it traces, reads and ranks it. The selected cells of several pictures then form parts together.
"""

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from steerlens.atlas import Cell, Reading, foil_of
from steerlens.images import Picture
from steerlens.sweep.engine import FinishedCells
from steerlens.sweep.job import Job

BATCHES_OF_A_PART = 2
"""Batches in a part: enough that tracing pictures again costs little, few enough that a lost part costs little."""


@dataclass(frozen=True, eq=False)
class SweepPart:
    """Cells and readings for one worker, with the pictures that they need.

    Attributes:
        pictures: id -> picture.
        unread: ids of the pictures whose reading is missing.
        cells: the cells to decode.
        surveys: True if its only picture is read and ranked, and nothing is decoded.
    """

    pictures: Mapping[str, Picture]
    unread: frozenset[str]
    cells: tuple[Cell, ...] = ()
    surveys: bool = False


@dataclass(frozen=True, eq=False)
class PartResult:
    """Results of one part.

    Attributes:
        finished: readings and cells, in the order in which they finished.
        batch: number of pictures that the worker now decodes at once.
        selected: cells to decode, the result of a survey.
    """

    finished: tuple[Reading | FinishedCells, ...]
    batch: int
    selected: tuple[Cell, ...] = ()


class PartQueue:
    """Queue of unfinished cells and readings of a job, cut into parts on demand.

    Attributes:
        total: number of cells to decode; an upper bound until all pictures are ranked.
        decoded: number of decoded cells.
    """

    def __init__(self, job: Job, finished: frozenset[str], read: frozenset[str]) -> None:
        self._job, self._finished, self._read = job, finished, read
        self._selects = job.selection.rule != "all"
        self._finished_of = Counter(key.partition("|")[0] for key in finished)
        self.total = job.selection.at_most(job.plan.cells) - sum(self._finished_of[id] for id in job.plan.pictures)
        self.decoded = 0
        self._pictures = deque(id for id, cells in job.plan.by_picture() if self._is_left(id, cells))
        self._cells = deque[Cell]()
        self._unread = deque[str]()
        self._lost = deque[SweepPart]()
        self._given_out = set[SweepPart]()

    def _is_left(self, id: str, cells: tuple[Cell, ...]) -> bool:
        return id not in self._read or self._finished_of[id] < self._job.selection.at_most(cells)

    @property
    def is_left(self) -> bool:
        """True if anything is unfinished, including parts that workers have."""
        return bool(self._pictures or self._cells or self._unread or self._lost or self._given_out)

    def take(self, batch: int, workers: int) -> SweepPart | None:
        """Takes the next part; None if no part is ready, because surveys are still running.

        Args:
            batch: number of pictures that the receiving worker decodes at once.
            workers: number of workers that share the remaining cells.
        """
        part = self._lost.popleft() if self._lost else self._cut(BATCHES_OF_A_PART * batch, batch, workers)
        if part is not None:
            self._given_out.add(part)
        return part

    def put_back(self, part: SweepPart) -> None:
        """Returns a part to the queue after its worker died."""
        self._given_out.discard(part)
        self._lost.appendleft(part)

    def finish(self, part: SweepPart, result: PartResult) -> None:
        """Records the result of a part."""
        self._given_out.discard(part)
        self.decoded += len(part.cells)
        if part.surveys:
            (id,) = part.pictures
            self.total -= self._job.selection.at_most(self._job.plan.of(id)) - len(result.selected)
            self._cells += [cell for cell in result.selected if cell.key not in self._finished]

    def _cut(self, size: int, batch: int, workers: int) -> SweepPart | None:
        while self._pictures and len(self._cells) < size:
            id = self._pictures.popleft()
            unread = [] if id in self._read else [id]
            cells = self._job.plan.of(id)
            if self._selects and self._finished_of[id] < self._job.selection.at_most(cells):
                return SweepPart(self._with_pictures(unread, [id]), frozenset(unread), surveys=True)
            self._unread += unread
            if not self._selects:
                self._cells += [cell for cell in cells if cell.key not in self._finished]
        if not self._pictures:
            if len(self._cells) < size and any(part.surveys for part in self._given_out):
                return None
            # The last cells are shared among workers, in parts not much smaller than a batch.
            size = min(size, max(math.ceil(len(self._cells) / workers), math.ceil(batch / 4)))
        taken = tuple(self._cells.popleft() for _ in range(min(size, len(self._cells))))
        ids = dict.fromkeys(cell.picture for cell in taken)
        # Pictures without cells to decode come last, one by one.
        unread = [id for id in self._unread if id in ids] if taken else [*self._unread][:1]
        self._unread = deque(id for id in self._unread if id not in unread)
        if not ids and not unread:
            return None
        return SweepPart(self._with_pictures(unread, ids, self._others_of(ids)), frozenset(unread), taken)

    def _others_of(self, ids: Iterable[str]) -> list[str]:
        """Inputs whose writes the foils of some pictures take; all cells of a picture are steered together."""
        return [
            foil_of(self._job.inputs, cell.picture, cell.draw)
            for id in ids
            for cell in self._job.plan.of(id)
            if cell.lens == "foil"
        ]

    def _with_pictures(self, *ids: Iterable[str]) -> dict[str, Picture]:
        return {id: self._job.pictures[id] for group in ids for id in group}
