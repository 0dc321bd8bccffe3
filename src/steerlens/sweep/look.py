"""Looking at pictures: from options to an atlas, for the command line, the Python API and an app alike."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from steerlens.atlas.atlas import Atlas
from steerlens.atlas.results import CellResult, Reading
from steerlens.errors import UsageError
from steerlens.images import Picture, load_pictures
from steerlens.lenses.components import Direction
from steerlens.lenses.strength import Strength
from steerlens.progress import Progress, run_to_end
from steerlens.report.notebook import NotebookAtlas
from steerlens.runs.store import RunWriter, load_run, open_run
from steerlens.sweep.engine import FinishedCells, run
from steerlens.sweep.identity import identity
from steerlens.sweep.job import Job
from steerlens.sweep.options import LookOptions
from steerlens.sweep.prepare import make_job
from steerlens.sweep.ray.cluster import Workers, check_cluster
from steerlens.sweep.ray.engine import run_on_ray
from steerlens.vocabulary import Vocabulary
from steerlens.zoo.pair import Pair
from steerlens.zoo.vocabularies import read_vocabulary

Engine = Callable[[Job, frozenset[str], frozenset[str]], Iterator[Progress]]
"""Carries a job out: given the keys of finished cells and the ids of stored readings, it yields the rest."""


def look_in(pair: Pair, job: Job, folder: Path | None, engine: Engine = run) -> "Generator[Progress, None, Atlas]":
    """Carries a job out, yields progress, and returns the atlas.

    Args:
        pair: encoder and decoder.
        job: what `make_job` gave.
        folder: a run directory to store every finished part in, and to go on with if it holds the same run; None keeps
            the results in memory alone.
        engine: carries the job out; the local one, or one on a cluster (`ray_engine`).

    Raises:
        UsageError: if the folder holds another run.
        StoreError: if it cannot be written; what was stored before stays.
    """
    started = time.time()
    what = identity(pair, job)
    if folder is None:
        readings, results = list[Reading](), list[CellResult]()
        yield from _carry_out(engine(job, frozenset(), frozenset()), readings.append, results.extend)
        order = {cell: index for index, cell in enumerate(job.plan.cells)}
        results.sort(key=lambda result: order[result.cell])
        provenance = pair.provenance.to_json()
        manifest = {**what, "provenance": provenance, "seconds": round(time.time() - started, 1)}
        return NotebookAtlas(job.encoder.spec, job.decoder.spec, job.plan, tuple(readings), tuple(results), manifest)
    geometry = job.encoder.spec.geometry
    facts = {"provenance": pair.provenance.to_json(), "geometry": None if geometry is None else asdict(geometry)}
    with open_run(folder, what, facts) as writer:
        if not (writer.complete and writer.read.issuperset(job.pictures)):
            yield from _carry_out(engine(job, writer.finished, writer.read), writer.add_reading, writer.add_cells)
        _finish(writer, started)
    return load_run(folder)


def ray_engine(workers: Workers, load: Callable[[], Pair]) -> Engine:
    """An engine of Ray workers.

    Args:
        workers: how many, and where.
        load: gives each its pair; it travels to the worker by pickling.

    Raises:
        UsageError: if Ray is not installed, or nothing answers at the address.
    """
    check_cluster(workers)

    def engine(job: Job, finished: frozenset[str], read: frozenset[str]) -> Iterator[Progress]:
        return run_on_ray(job, workers, load, finished, read)

    return engine


def _copy(pair: Pair) -> Pair:
    return pair


def _finish(writer: RunWriter, started: float) -> None:
    seconds = round(time.time() - started, 1)
    writer.finish(**({"resumed": True} if writer.resumed else {"seconds": seconds}))


def _carry_out(
    events: Iterator[Progress],
    keep_reading: Callable[[Reading], None],
    keep_cells: Callable[[tuple[CellResult, ...]], None],
) -> "Generator[Progress]":
    for event in events:
        if isinstance(event.payload, Reading):
            keep_reading(event.payload)
        elif isinstance(event.payload, FinishedCells):
            keep_cells(event.payload.results)
        yield event


def look(
    pair: Pair,
    pictures: Sequence[Picture | str | Path] | Picture | str | Path,
    *,
    target: str | Path | Picture | None = None,
    vocabulary: Vocabulary | str | Path | None = None,
    folder: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    workers: Workers | None = None,
    directions: Mapping[str, Direction] | None = None,
    **options: Any,
) -> Atlas:
    """Looks at pictures through every lens: the main job in one call.

    Args:
        pair: encoder and decoder, as `steerlens.loading` gives them.
        pictures: one or several; paths are read.
        target: what similarities are measured against; by default each input itself.
        vocabulary: what the Logit Lens reads with, or where it is (see `read_vocabulary`); by default the pair's own.
        folder: a run directory to write, and to go on with.
        progress: called with every event; the payload is a finished `Reading` or `FinishedCells`, if any.
        workers: Ray workers that carry it out, each with a copy of the pair; by default this process does.
        directions: directions (D,), groups and regions by name, which are looked at besides the sites.
        **options: the fields of `LookOptions`; `strength` may be a `Strength` too.

    Returns:
        The atlas, which shows itself in a notebook.

    Raises:
        UsageError: if an option is unknown or makes no sense for this pair.
        SteerlensError: as the parts do.
    """
    if isinstance(options.get("strength"), Strength):
        options["strength"] = str(options["strength"])
    try:
        chosen = LookOptions(**options)
    except TypeError as error:
        raise UsageError(f"look: {error}.") from None
    given = [pictures] if isinstance(pictures, Picture | str | Path) else list(pictures)
    loaded = load_pictures(given)
    labels = read_vocabulary(vocabulary, pair) if isinstance(vocabulary, str | Path) else vocabulary
    job = make_job(pair, loaded, chosen, target, labels, directions)
    engine = run if workers is None else ray_engine(workers, partial(_copy, pair))
    events = look_in(pair, job, None if folder is None else Path(folder), engine)
    return run_to_end(events, progress)
