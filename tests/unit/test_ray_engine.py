"""Parts of a sweep, and sweeps on Ray's workers: the same results, whoever dies."""

import importlib.util
import os
import signal
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from steerlens.errors import ModelError, UsageError
from steerlens.images import Picture
from steerlens.sweep.atlas import Atlas
from steerlens.sweep.engine import CellsDone, ReadingDone
from steerlens.sweep.look import LookOptions, look, look_in, make_job, ray_engine
from steerlens.sweep.ray_engine import Worker, Workers, parts_of, run_on_ray
from steerlens.sweep.store import load_run
from steerlens.testing.tiny import save_tiny_pair
from steerlens.zoo.load import Pair, load

OPTIONS = LookOptions(steps=2, batch_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def pair(folder: Path) -> Pair:
    return load(folder, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 20, 20, 3), dtype=np.uint8)
    return [Picture.from_image(Image.fromarray(one), f"noise{index}") for index, one in enumerate(pixels)]


@pytest.fixture(scope="module")
def local(pair: Pair, pictures: list[Picture]) -> Atlas:
    return look(pair, pictures, steps=2, batch_size=4)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="runs where the extra `ray` is installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own starting
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        yield ray
        ray.shutdown()


def same(one: Atlas, other: Atlas) -> bool:
    pairs = list(zip(one.results, other.results, strict=True))
    return all(
        a.cell == b.cell and np.abs(a.picture.astype(int) - b.picture.astype(int)).max() <= 2 for a, b in pairs
    ) and [reading.id for reading in one.readings] == [reading.id for reading in other.readings]


def test_parts_hold_every_cell_that_is_left_once(pair: Pair, pictures: list[Picture]) -> None:
    job = make_job(pair, pictures, OPTIONS)
    keys = [cell.key for cell in job.plan.cells]
    finished = frozenset(keys[:30])
    parts = parts_of(job, finished, frozenset(), 8)
    held = [key for part in parts for key in part.left]
    assert sorted(held) == sorted(set(keys) - finished)
    assert all(len(part.left) <= 8 for part in parts)
    assert all(key.startswith(part.picture) for part in parts for key in part.left)
    # an input of which all cells are finished, but not its reading, is still gone through
    first = job.plan.cells[0].picture
    of_first = frozenset(key for key in keys if key.startswith(first))
    assert [part.left for part in parts_of(job, of_first, frozenset(), 8) if part.picture == first] == [frozenset()]
    assert not parts_of(job, frozenset(keys), frozenset(job.pictures), 8)


def test_a_worker_chooses_among_all_cells_of_a_picture_whatever_its_part(pair: Pair, pictures: list[Picture]) -> None:
    job = make_job(pair, pictures[:1], LookOptions(steps=2, decode="top:2"))
    names = ("pictures", "plan", "options", "choice", "vocabulary", "target")
    worker = Worker(lambda: pair, {name: getattr(job, name) for name in names}, 1)
    events = [event for part in parts_of(job, frozenset(), frozenset(), 5) for event in worker.do(part)]
    decoded = [result.cell for event in events if isinstance(event, CellsDone) for result in event.results]
    whole = look(pair, pictures[:1], steps=2, decode="top:2")
    assert sorted(cell.key for cell in decoded) == sorted(result.cell.key for result in whole.results)


def test_rays_pictures_are_the_local_ones(
    cluster: Any, folder: Path, pair: Pair, pictures: list[Picture], local: Atlas, tmp_path: Path
) -> None:
    engine = ray_engine(Workers(count=2), partial(load, folder, dtype="float32", device="cpu"))
    events = list(look_in(pair, make_job(pair, pictures, OPTIONS), tmp_path / "run", engine))
    assert [event.done for event in events] == sorted(event.done for event in events)
    assert events[-1].done == events[-1].total == len(local.results)
    assert same(load_run(tmp_path / "run"), local)
    # nothing is left for a second call, which needs no worker at all
    assert not list(look_in(pair, make_job(pair, pictures, OPTIONS), tmp_path / "run", engine))


def test_look_takes_workers(cluster: Any, pair: Pair, pictures: list[Picture], local: Atlas) -> None:
    assert same(look(pair, pictures, steps=2, batch_size=4, workers=Workers(count=1)), local)


def test_a_worker_that_is_killed_costs_its_parts_in_hand_and_no_more(
    cluster: Any, folder: Path, pair: Pair, pictures: list[Picture], local: Atlas, tmp_path: Path
) -> None:
    alive = tmp_path / "alive"
    alive.mkdir()

    def load_and_tell() -> Pair:
        (alive / str(os.getpid())).touch()
        return load(folder, dtype="float32", device="cpu")

    job = make_job(pair, pictures, OPTIONS)
    keys: list[str] = []
    readings: list[str] = []
    killed = False
    for event in run_on_ray(job, Workers(count=2), load_and_tell):
        if isinstance(event, CellsDone):
            keys += [result.cell.key for result in event.results]
            if not killed:
                os.kill(int(next(alive.iterdir()).name), signal.SIGKILL)
                killed = True
        elif isinstance(event, ReadingDone):
            readings.append(event.reading.id)
    assert killed
    assert len(list(alive.iterdir())) == 3, "the dead worker was replaced by one"
    assert sorted(keys) == sorted(cell.key for cell in job.plan.cells)
    assert sorted(readings) == sorted(job.pictures)


def test_a_part_that_kills_every_worker_ends_the_sweep(
    cluster: Any, folder: Path, pair: Pair, pictures: list[Picture]
) -> None:
    def deadly() -> Pair:
        found = load(folder, dtype="float32", device="cpu")
        found.encoder.preprocess = lambda *_: os._exit(1)  # type: ignore[method-assign]
        return found

    job = make_job(pair, pictures[:1], OPTIONS)
    with pytest.raises(ModelError, match="workers died 3 times over one part"):
        list(run_on_ray(job, Workers(count=1), deadly))


def test_what_goes_wrong_on_a_worker_reads_as_if_it_had_gone_wrong_here(
    cluster: Any, pair: Pair, pictures: list[Picture]
) -> None:
    def broken() -> Pair:
        raise ModelError("no weights on this machine")

    with pytest.raises(ModelError, match="no weights on this machine"):
        list(run_on_ray(make_job(pair, pictures, OPTIONS), Workers(count=1), broken))


def test_more_gpus_than_there_are_is_refused(cluster: Any, pair: Pair, pictures: list[Picture]) -> None:
    job = make_job(pair, pictures, OPTIONS)
    with pytest.raises(UsageError, match="each worker is to have 1000 GPUs, and the cluster has 0"):
        list(run_on_ray(job, Workers(gpus=1000), lambda: pair))


def test_without_ray_the_extra_is_named(pair: Pair, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'steerlens\[ray\]'"):
        look(pair, pictures, workers=Workers())


@pytest.mark.parametrize("wrong", [{"count": 0}, {"cpus": 0}, {"gpus": -1.0}])
def test_workers_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="worker"):
        Workers(**wrong)
