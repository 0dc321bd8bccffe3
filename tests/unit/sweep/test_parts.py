"""Parts of a sweep for workers on other machines, and a worker's handling of them; no cluster is needed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steerlens.atlas.atlas import Atlas
from steerlens.atlas.results import CellResult
from steerlens.errors import ModelError
from steerlens.images import Picture
from steerlens.loading import Pair, load
from steerlens.sweep.engine import FinishedCells
from steerlens.sweep.job import Job
from steerlens.sweep.look import look
from steerlens.sweep.options import LookOptions
from steerlens.sweep.prepare import make_job
from steerlens.sweep.ray.parts import PartQueue, SweepPart
from steerlens.sweep.ray.worker import PartWorker
from steerlens.sweep.selection import Selection
from steerlens.testing.tiny import save_tiny_pair

OPTIONS = LookOptions(steps=2, batch_size=4)


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 20, 20, 3), dtype=np.uint8)
    return [Picture.from_image(Image.fromarray(one), f"noise{index}") for index, one in enumerate(pixels)]


def same(one: Atlas, other: Atlas) -> bool:
    pairs = list(zip(one.results, other.results, strict=True))
    return all(a.cell == b.cell and np.abs(a.picture.astype(int) - b.picture.astype(int)).max() <= 2 for a, b in pairs)


def carried_out(
    queue: PartQueue, worker: PartWorker, batch: int, workers: int = 1
) -> tuple[list[SweepPart], list[CellResult]]:
    """All parts of a sweep, one after the other, and what they gave."""
    parts, results = list[SweepPart](), list[CellResult]()
    while queue.is_left:
        part = queue.take(batch, workers)
        assert part is not None
        parts.append(part)
        result = worker.do(part)
        queue.finish(part, result)
        finished = [cells for cells in result.finished if isinstance(cells, FinishedCells)]
        results += [of_cell for cells in finished for of_cell in cells.results]
    return parts, results


def a_worker(pair: Pair, job: Job) -> PartWorker:
    names = ("plan", "options", "selection", "vocabulary", "target", "models")
    return PartWorker(lambda: pair, {name: getattr(job, name) for name in names}, 1)


def test_parts_hold_every_cell_that_is_left_once_and_the_pictures_they_need(
    pair: Pair, pictures: list[Picture]
) -> None:
    job = make_job(pair, pictures, OPTIONS)
    keys = [cell.key for cell in job.plan.cells]
    finished = frozenset(keys[:30])
    queue = PartQueue(job, finished, frozenset())
    parts = list[SweepPart]()
    while (part := queue.take(4, 2)) is not None:
        parts.append(part)
    held = [cell.key for part in parts for cell in part.cells]
    assert sorted(held) == sorted(set(keys) - finished)
    assert max(len(part.cells) for part in parts) == 8
    assert all(set(part.pictures) == {cell.picture for cell in part.cells} | part.unread for part in parts)
    # an input of which all cells are finished, but not its reading, is still gone through; every reading comes once
    assert sorted(id for part in parts for id in part.unread) == sorted(job.pictures)
    assert [part.cells for part in parts if job.plan.pictures[0] in part.unread] == [()]
    assert not PartQueue(job, frozenset(keys), frozenset(job.pictures)).is_left
    assert queue.is_left, "until they are finished"


def test_the_last_cells_are_shared_out(pair: Pair, pictures: list[Picture]) -> None:
    queue = PartQueue(make_job(pair, pictures[:1], OPTIONS), frozenset(), frozenset())
    sizes = [len(part.cells) for part in iter(lambda: queue.take(16, 4), None)]
    assert sum(sizes) == 21 and max(sizes) == 6


def test_a_part_that_was_lost_is_given_out_again(pair: Pair, pictures: list[Picture]) -> None:
    queue = PartQueue(make_job(pair, pictures[:1], OPTIONS), frozenset(), frozenset())
    part = queue.take(64, 1)
    assert part is not None and queue.take(64, 1) is None
    queue.put_back(part)
    assert queue.take(64, 1) is part


@pytest.mark.parametrize("decode", ["top:2", "above:0.9", "all"])
def test_a_choice_is_ranked_once_a_picture_and_decoded_in_large_batches(
    decode: str, pair: Pair, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(pair, pictures, LookOptions(steps=2, decode=decode))
    picked: list[int] = []
    real = Selection.select
    monkeypatch.setattr(Selection, "select", lambda self, cells: picked.append(1) or real(self, cells))
    queue = PartQueue(job, frozenset(), frozenset())
    parts, results = carried_out(queue, a_worker(pair, job), batch=64)
    assert len(picked) == (0 if decode == "all" else len(pictures))
    # three pictures have few cells each, and all of them are decoded together
    assert len([part for part in parts if part.cells]) == 1
    assert queue.decoded == queue.total == len(results)
    monkeypatch.undo()
    whole = look(pair, pictures, steps=2, decode=decode)
    assert same(replace(whole, results=tuple(sorted(results, key=lambda one: place(job, one)))), whole)


def place(job: Job, result: CellResult) -> int:
    return [cell.key for cell in job.plan.cells].index(result.cell.key)


def test_a_finished_choice_leaves_no_part(pair: Pair, pictures: list[Picture]) -> None:
    job = make_job(pair, pictures, LookOptions(steps=2, decode="top:2"))
    keys = frozenset(result.cell.key for result in look(pair, pictures, steps=2, decode="top:2").results)
    assert not PartQueue(job, keys, frozenset(job.pictures)).is_left
    # one cell that is missing is ranked again, and alone decoded
    (missing, *_) = sorted(keys)
    queue = PartQueue(job, keys - {missing}, frozenset(job.pictures))
    _, results = carried_out(queue, a_worker(pair, job), batch=4)
    assert [result.cell.key for result in results] == [missing]


def test_a_worker_keeps_the_size_of_batches_that_it_has_learnt(pair: Pair, pictures: list[Picture]) -> None:
    job = make_job(pair, pictures, OPTIONS)
    worker, queue = a_worker(pair, job), PartQueue(job, frozenset(), frozenset())
    first, second = queue.take(4, 1), queue.take(4, 1)
    assert first is not None and second is not None
    assert worker.do(first).batch == 4
    worker.batch.did_not_fit(4)
    assert worker.do(second).batch == 2


def test_a_worker_with_other_models_is_refused(pair: Pair, pictures: list[Picture], tmp_path: Path) -> None:
    job = make_job(pair, pictures, OPTIONS)
    other = load(save_tiny_pair(tmp_path / "other", seed=1), dtype="float32", device="cpu")
    with pytest.raises(ModelError, match=r"the worker on .* has other models than this machine: sha256\."):
        a_worker(other, job)
    half = load(save_tiny_pair(tmp_path / "same"), dtype="bfloat16", device="cpu")
    with pytest.raises(ModelError, match=r"encoder\.dtype is bfloat16 there, and float32 here.*--dtype"):
        a_worker(half, job)


def test_a_worker_uses_kept_traces_if_the_job_does(
    pair: Pair, pictures: list[Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEERLENS_CACHE", str(tmp_path / "cache"))
    job = make_job(pair, pictures, OPTIONS)
    rest = {"plan": job.plan, "options": job.options}
    assert PartWorker(lambda: pair, rest, 1).job.traces is None
    worker, queue = PartWorker(lambda: pair, rest, 1, cached=True), PartQueue(job, frozenset(), frozenset())
    parts, _ = carried_out(queue, worker, batch=4)
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(pictures) < len(parts)
