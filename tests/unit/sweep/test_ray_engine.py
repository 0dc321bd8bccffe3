"""Parts of a sweep, and sweeps on Ray's workers: the same results, whoever dies."""

import importlib.util
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_saes import tiny_sae

from steerlens.atlas.atlas import Atlas
from steerlens.atlas.results import Reading
from steerlens.errors import ModelError, UsageError
from steerlens.images import Picture
from steerlens.loading import Pair, load
from steerlens.progress import Progress, run_to_end
from steerlens.runs.store import load_run
from steerlens.sweep.engine import FinishedCells
from steerlens.sweep.job import Job
from steerlens.sweep.look import _copy, look, look_in, ray_engine
from steerlens.sweep.options import LookOptions
from steerlens.sweep.prepare import make_job
from steerlens.sweep.ray import cluster as cluster_module
from steerlens.sweep.ray import engine as ray_engine_module
from steerlens.sweep.ray.cluster import Workers, room_for, running_cluster
from steerlens.sweep.ray.engine import run_on_ray

OPTIONS = LookOptions(steps=2, batch_size=4)


def cells_of(events: list[Progress]) -> list[FinishedCells]:
    return [event.payload for event in events if isinstance(event.payload, FinishedCells)]


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


def test_rays_pictures_are_the_local_ones(
    cluster: Any, pair_folder: Path, pair: Pair, pictures: list[Picture], local: Atlas, tmp_path: Path
) -> None:
    engine = ray_engine(Workers(count=2), partial(load, pair_folder, dtype="float32", device="cpu"))
    events = list(look_in(pair, make_job(pair, pictures, OPTIONS), tmp_path / "run", engine))
    decoding = [event.done for event in events if event.stage == "decoding"]
    assert decoding == sorted(decoding)
    assert events[-1].done == events[-1].total == len(local.results)
    assert same(load_run(tmp_path / "run"), local)
    # nothing is left for a second call, which needs no worker at all
    assert not list(look_in(pair, make_job(pair, pictures, OPTIONS), tmp_path / "run", engine))


def test_look_takes_workers(cluster: Any, pair: Pair, pictures: list[Picture], local: Atlas) -> None:
    assert same(look(pair, pictures, steps=2, batch_size=4, workers=Workers(count=1)), local)


def test_workers_show_the_features_that_the_caller_chose(cluster: Any, pair: Pair, pictures: list[Picture]) -> None:
    sae = tiny_sae(pair.encoder)
    options: dict[str, Any] = {"saes": [sae], "sites": "features,neuron.1", "strongest": 2, "steps": 2, "batch_size": 4}
    here, there = look(pair, pictures, **options), look(pair, pictures, **options, workers=Workers(count=1))
    assert same(here, there)
    assert here.manifest["saes"] == there.manifest["saes"]
    for one, other in zip(here.readings, there.readings, strict=True):
        assert [unit.site for unit in one.units] == [unit.site for unit in other.units] and len(one.units) == 6
        for first, second in zip(one.units, other.units, strict=True):
            assert second.effect == pytest.approx(first.effect, abs=1e-5)
            assert torch.allclose(first.tokens, second.tokens, atol=1e-5)


def machine(**resources: float) -> dict[str, Any]:
    return {"Alive": True, "Resources": resources}


@pytest.mark.parametrize(
    ("machines", "asked", "fit", "gpus"),
    [
        ([machine(CPU=4.0)], {}, 4, 0.0),
        ([machine(CPU=4.0), machine(CPU=3.0)], {"cpus": 2}, 3, 0.0),
        ([machine(CPU=4.0), {**machine(CPU=9.0), "Alive": False}], {"count": 3}, 3, 0.0),
        ([machine(CPU=16.0, GPU=4.0), machine(CPU=8.0)], {}, 4, 1.0),
        ([machine(CPU=2.0, GPU=4.0)], {}, 2, 1.0),
        ([machine(CPU=16.0, GPU=2.0)], {"gpus": 0.4}, 4, 0.4),
        ([machine(CPU=16.0, GPU=1.0)], {"gpus": 0.1}, 10, 0.1),
        ([machine(CPU=16.0, GPU=8.0), machine(CPU=16.0, GPU=3.0)], {"gpus": 2.0}, 5, 2.0),
        ([machine(CPU=16.0, GPU=8.0)], {"gpus": 0.0}, 16, 0.0),
    ],
)
def test_workers_fit_on_machines_each_by_itself(
    machines: list[dict[str, Any]], asked: dict[str, Any], fit: int, gpus: float
) -> None:
    room = room_for(SimpleNamespace(nodes=lambda: machines), Workers(**asked))
    assert (room.workers, room.gpus) == (fit, gpus)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"count": 3}, "3 workers of 1 CPU cores were requested, but the cluster has room for 2"),
        ({"cpus": 3}, "each worker needs 3 CPU cores, but the largest machine of the cluster has 2"),
        ({"gpus": 1000.0}, "each worker needs 1000 GPUs, but the largest machine of the cluster has 0"),
    ],
)
def test_more_than_the_cluster_holds_is_refused_and_not_waited_for(
    asked: dict[str, Any], said: str, cluster: Any, pair: Pair, pictures: list[Picture]
) -> None:
    with pytest.raises(UsageError, match=said):
        list(run_on_ray(make_job(pair, pictures, OPTIONS), Workers(**asked), lambda: pair))


@pytest.mark.parametrize("count", [2, 1])
def test_a_worker_that_is_killed_costs_its_parts_in_hand_and_no_more(
    count: int, cluster: Any, pair_folder: Path, pair: Pair, pictures: list[Picture], local: Atlas, tmp_path: Path
) -> None:
    alive = tmp_path / "alive"
    alive.mkdir()

    def load_and_tell() -> Pair:
        (alive / str(os.getpid())).touch()
        return load(pair_folder, dtype="float32", device="cpu")

    events: list[Any] = []

    def killing(job: Job, finished: frozenset[str], read: frozenset[str]) -> Iterator[Any]:
        for event in run_on_ray(job, Workers(count=count), load_and_tell, finished, read):
            if isinstance(event.payload, FinishedCells) and not cells_of(events):
                os.kill(int(next(alive.iterdir()).name), signal.SIGKILL)
            events.append(event)
            yield event

    atlas = run_to_end(look_in(pair, make_job(pair, pictures, OPTIONS), tmp_path / "run", killing))
    # The dead worker is replaced by one; where another lives, the sweep may be over before its successor is there.
    assert len(list(alive.iterdir())) in ({2} if count == 1 else {2, 3})
    keys = [result.cell.key for cells in cells_of(events) for result in cells.results]
    assert sorted(keys) == sorted(cell.key for cell in atlas.plan.cells)
    readings = [event.payload.id for event in events if isinstance(event.payload, Reading)]
    assert sorted(readings) == sorted(atlas.plan.pictures)
    assert same(atlas, local)


class FakeRay:
    """Ray's calls, carried out in this process when their results are asked for.

    Attributes:
        error: what comes back in place of the result of a call: told the method and how often it was called, or None.
        late: how many times `wait` comes back with nothing.
        calls: what was called, in order.
        killed: how many actors were ended.
    """

    def __init__(self, error: Callable[[str, int], Exception | None] = lambda *_: None, late: int = 0) -> None:
        self.exceptions = pytest.importorskip("ray", reason="runs where the extra `ray` is installed").exceptions
        self.error, self.late, self.calls, self.killed = error, late, list[str](), 0

    def nodes(self) -> list[dict[str, Any]]:
        return [machine(CPU=2.0)]

    def put(self, value: Any) -> Any:
        return value

    def remote(self, kind: Any) -> Any:
        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: self._actor(kind())))

    def _actor(self, held: Any) -> Any:
        def method(name: str) -> Any:
            def call(*arguments: Any) -> Any:
                self.calls.append(name)
                error = self.error(name, self.calls.count(name))
                return _Hashable(error=error, result=lambda: getattr(held, name)(*arguments))

            return SimpleNamespace(remote=call)

        return _Hashable(start=method("start"), do=method("do"))

    def wait(self, refs: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        self.late -= 1
        return ([], refs) if self.late >= 0 else (refs[:1], refs[1:])

    def get(self, ref: Any) -> Any:
        if ref.error is not None:
            raise ref.error
        return ref.result()

    def kill(self, actor: Any) -> None:
        self.killed += 1


class _Hashable(SimpleNamespace):
    __hash__ = object.__hash__
    __eq__ = object.__eq__


def run_on(ray: FakeRay, pair: Pair, job: Job, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setattr(ray_engine_module, "running_cluster", lambda _: nullcontext(ray))
    return list(run_on_ray(job, Workers(count=1), partial(_copy, pair)))


@pytest.mark.parametrize("name", ["OutOfMemoryError", "NodeDiedError", "ActorDiedError", "ObjectLostError"])
def test_a_worker_that_the_cluster_ends_costs_its_parts_in_hand_and_no_more(
    name: str, pair: Pair, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay()
    kind = getattr(ray.exceptions, name)
    made = {"ActorDiedError": (), "ObjectLostError": ("00", None, "")}.get(name, ("memory on the node ran low",))
    ray.error = lambda method, number: kind(*made) if (method, number) == ("do", 2) else None
    job = make_job(pair, pictures, OPTIONS)
    events = run_on(ray, pair, job, monkeypatch)
    keys = [result.cell.key for cells in cells_of(events) for result in cells.results]
    assert sorted(keys) == sorted(cell.key for cell in job.plan.cells)
    readings = [event.payload.id for event in events if isinstance(event.payload, Reading)]
    assert sorted(readings) == sorted(job.pictures)
    assert ray.calls.count("start") == ray.killed == 2, "it was ended and replaced, and the other one dismissed"
    assert {event.stage for event in events} == {"starting workers", "decoding"}


def test_parts_are_given_to_workers_that_have_answered_and_what_is_waited_for_is_told(
    pair: Pair, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay(late=3)
    given: list[int] = []
    ray.error = lambda method, number: given.append(max(ray.late, 0)) if method == "do" else None  # type: ignore[func-returns-value]
    events = run_on(ray, pair, make_job(pair, pictures[:1], OPTIONS), monkeypatch)
    assert set(given) == {0}
    waiting = [event for event in events if event.stage == "starting workers"]
    assert [event.done for event in waiting] == [0, 0, 0, 0]


def test_workers_that_die_while_they_start_are_told_from_parts_that_kill_them(
    pair: Pair, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay()
    ray.error = lambda method, _: ray.exceptions.OutOfMemoryError("task was killed\nthe node ran low on memory.")
    with pytest.raises(ModelError, match="3 times in a row while starting: the node ran low on memory") as refused:
        run_on(ray, pair, make_job(pair, pictures, OPTIONS), monkeypatch)
    assert isinstance(refused.value.__cause__, ray.exceptions.OutOfMemoryError)
    assert "do" not in ray.calls
    ray = FakeRay()
    ray.error = lambda method, _: ray.exceptions.NodeDiedError("gone") if method == "do" else None
    with pytest.raises(ModelError, match=r"3 times on one part of picture noise0 \(gone\)") as refused:
        run_on(ray, pair, make_job(pair, pictures, OPTIONS), monkeypatch)
    assert isinstance(refused.value.__cause__, ray.exceptions.NodeDiedError)


def test_a_part_that_kills_every_worker_ends_the_sweep(
    cluster: Any, pair_folder: Path, pair: Pair, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real worker that takes itself out; three deaths in a row, at a worker's start each, are told of above."""

    def deadly() -> Pair:
        found = load(pair_folder, dtype="float32", device="cpu")
        found.encoder.preprocess = lambda *_: os._exit(1)  # type: ignore[method-assign]
        return found

    monkeypatch.setattr(ray_engine_module, "TRIES", 1)
    job = make_job(pair, pictures[:1], OPTIONS)
    with pytest.raises(ModelError, match="workers died 1 times on one part"):
        list(run_on_ray(job, Workers(count=1), deadly))


def test_what_goes_wrong_on_a_worker_reads_as_if_it_had_gone_wrong_here(
    cluster: Any, pair: Pair, pictures: list[Picture]
) -> None:
    def broken() -> Pair:
        raise ModelError("no weights on this machine")

    with pytest.raises(ModelError, match="no weights on this machine"):
        list(run_on_ray(make_job(pair, pictures, OPTIONS), Workers(count=1), broken))


def test_what_a_worker_lacks_is_told(cluster: Any, pair: Pair, pictures: list[Picture]) -> None:
    def incomplete() -> Pair:
        raise ModuleNotFoundError("No module named 'abacus'")

    with pytest.raises(ModelError, match=r"a worker cannot start: .*No module named 'abacus'") as refused:
        list(run_on_ray(make_job(pair, pictures, OPTIONS), Workers(count=1), incomplete))
    assert "incomplete" in str(refused.value.__cause__), "where it was raised is chained"


def test_without_an_address_ray_is_started_here_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="runs where the extra `ray` is installed")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    asked: dict[str, Any] = {}
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: asked.update(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(cluster_module, "private_ray", nullcontext)  # another cluster runs in this process
    with running_cluster(Workers()):
        pass
    assert asked["address"] == "local"


def test_without_ray_the_extra_is_named(pair: Pair, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'steerlens\[ray\]'"):
        look(pair, pictures, workers=Workers())


@pytest.mark.parametrize("wrong", [{"count": 0}, {"cpus": 0}, {"gpus": -1.0}, {"gpus": 1.5}])
def test_workers_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="worker"):
        Workers(**wrong)
