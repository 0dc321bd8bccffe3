"""Entry points of a sweep: from options to an atlas, for the command line, the Python API and an app."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from steerlens.atlas import Atlas, CellResult, Reading
from steerlens.errors import UsageError
from steerlens.images import Picture, load_pictures
from steerlens.lenses import Direction, Strength
from steerlens.progress import Progress, run_to_end
from steerlens.report.notebook import NotebookAtlas
from steerlens.runs import RunWriter, load_run, open_run
from steerlens.sweep.engine import FinishedCells, run
from steerlens.sweep.identity import identity
from steerlens.sweep.job import Job
from steerlens.sweep.options import LookOptions
from steerlens.sweep.prepare import make_job
from steerlens.sweep.ray.cluster import Workers, check_cluster
from steerlens.sweep.ray.engine import run_on_ray
from steerlens.vocabulary import Vocabulary
from steerlens.zoo import Pair, read_vocabulary

Engine = Callable[[Job, frozenset[str], frozenset[str]], Iterator[Progress]]
"""Function that runs a job: takes the keys of finished cells and the ids of stored readings, and yields the rest."""


def look_in(pair: Pair, job: Job, folder: Path | None, engine: Engine = run) -> "Generator[Progress, None, Atlas]":
    """Runs a job, yields progress, and returns the atlas.

    Args:
        pair: encoder and decoder.
        job: the job, as `make_job` returns it.
        folder: run directory that stores every finished part, and resumes if it contains the same run; None keeps the
            results in memory only.
        engine: the local engine, or one on a cluster (`ray_engine`).

    Raises:
        UsageError: if the folder contains another run.
        StoreError: if it cannot be written; parts stored before stay.
    """
    started = time.time()
    run_identity = identity(pair, job)
    if folder is None:
        readings, results = list[Reading](), list[CellResult]()
        yield from _collect(engine(job, frozenset(), frozenset()), readings.append, results.extend)
        order = {cell: index for index, cell in enumerate(job.plan.cells)}
        results.sort(key=lambda result: order[result.cell])
        provenance = pair.provenance.to_json()
        manifest = {**run_identity, "provenance": provenance, "seconds": round(time.time() - started, 1)}
        return NotebookAtlas(job.encoder.spec, job.decoder.spec, job.plan, tuple(readings), tuple(results), manifest)
    geometry = job.encoder.spec.geometry
    facts = {"provenance": pair.provenance.to_json(), "geometry": None if geometry is None else asdict(geometry)}
    with open_run(folder, run_identity, facts) as writer:
        if not (writer.complete and writer.read.issuperset(job.pictures)):
            yield from _collect(engine(job, writer.finished, writer.read), writer.add_reading, writer.add_cells)
        _finish(writer, started)
    return load_run(folder)


def ray_engine(workers: Workers, load: Callable[[], Pair]) -> Engine:
    """Engine that distributes a job to Ray workers.

    Args:
        workers: number, place and size of the workers.
        load: loads the pair on a worker's machine; it travels there pickled.

    Raises:
        UsageError: if Ray is not installed, or no cluster answers at the address.
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


def _collect(
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
    """Looks at pictures through every lens: the main job of the package in one call.

    Args:
        pair: encoder and decoder, as `steerlens.load` returns them.
        pictures: a picture or several; paths are read.
        target: a text, picture or path that similarities refer to; by default each input itself.
        vocabulary: labels for the Logit Lens, or their file (see `read_vocabulary`); by default the pair's own.
        folder: run directory to write or resume.
        progress: called with every event; the payload is a finished `Reading` or `FinishedCells`, if any.
        workers: Ray workers that do the work, each with a copy of the pair; by default this process does it.
        directions: name -> direction (D,), group or region to look at besides the sites.
        **options: fields of `LookOptions`; `strength` may also be a `Strength`.

    Returns:
        The atlas, which displays itself in a notebook.

    Raises:
        UsageError: if an option is unknown or makes no sense for this pair.
        SteerlensError: if a picture cannot be read, a model fails or the run cannot be stored.
    """
    if isinstance(options.get("strength"), Strength):
        options["strength"] = str(options["strength"])
    try:
        look_options = LookOptions(**options)
    except TypeError as error:
        raise UsageError(f"look: {error}.") from None
    inputs = load_pictures([pictures] if isinstance(pictures, Picture | str | Path) else list(pictures))
    labels = read_vocabulary(vocabulary, pair) if isinstance(vocabulary, str | Path) else vocabulary
    job = make_job(pair, inputs, look_options, target, labels, directions)
    engine = run if workers is None else ray_engine(workers, partial(_copy, pair))
    events = look_in(pair, job, None if folder is None else Path(folder), engine)
    return run_to_end(events, progress)
