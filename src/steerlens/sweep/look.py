"""Entry points of a sweep: from options to an atlas, for the command line, the Python API and an app."""

import difflib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, Literal, Never

from steerlens.atlas import CellResult, Reading
from steerlens.decoders import SchedulerName
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.lenses import Direction, RegionPart, Strength, as_strength
from steerlens.naming import NamesMethod
from steerlens.picture_arrays import PictureLike, PicturesLike, as_pictures
from steerlens.progress import Progress, run_to_end
from steerlens.report.notebook import NotebookAtlas
from steerlens.runs import RunWriter, load_run, open_run
from steerlens.saes import SparseAutoencoder
from steerlens.sites import Site, SiteLike, SitesLike, as_site
from steerlens.sweep.bar import shown
from steerlens.sweep.engine import FinishedCells, run
from steerlens.sweep.identity import identity
from steerlens.sweep.job import Job
from steerlens.sweep.options import DEFAULT_SITES, STRONGEST, LookOptions, RankedBy
from steerlens.sweep.prepare import make_job
from steerlens.sweep.ray.cluster import Workers, check_cluster
from steerlens.sweep.ray.engine import run_on_ray
from steerlens.sweep.survey import saes_of
from steerlens.vocabulary import Vocabulary
from steerlens.zoo import Pair, read_vocabulary

Engine = Callable[[Job, frozenset[str], frozenset[str]], Iterator[Progress]]
"""Function that runs a job: takes the keys of finished cells and the ids of stored readings, and yields the rest."""


def look_in(
    pair: Pair, job: Job, folder: Path | None, engine: Engine = run, facts: Mapping[str, Any] | None = None
) -> "Generator[Progress, None, NotebookAtlas]":
    """Runs a job, yields progress, and returns the atlas.

    Args:
        pair: encoder and decoder.
        job: the job, as `make_job` returns it.
        folder: run directory that stores every finished part, and resumes if it contains the same run; None keeps the
            results in memory only.
        engine: the local engine, or one on a cluster (`ray_engine`).
        facts: what else the manifest states, such as the command, without being part of the run's identity.

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
        known = {"provenance": pair.provenance.to_json(), **facts_beside_identity(job), **(facts or {})}
        manifest = {**run_identity, **known, "seconds": round(time.time() - started, 1)}
        return NotebookAtlas(job.encoder.spec, job.decoder.spec, job.plan, tuple(readings), tuple(results), manifest)
    geometry = job.encoder.spec.geometry
    known = {"provenance": pair.provenance.to_json(), "geometry": None if geometry is None else asdict(geometry)}
    known |= {**facts_beside_identity(job), **(facts or {})}
    with open_run(folder, run_identity, known) as writer:
        if not (writer.complete and writer.read.issuperset(job.pictures)):
            yield from _collect(engine(job, writer.finished, writer.read), writer.add_reading, writer.add_cells)
        _finish(writer, started)
    return load_run(folder)


def facts_beside_identity(job: Job) -> dict[str, Any]:
    """Returns what a manifest keeps of the pair's reference statistics and of autoencoders, to judge pictures by."""
    saes = {} if job.survey is None else job.survey.facts(saes_of(job.directions))
    return {**_reference_facts(job), **({"saes": saes} if saes else {})}


def _reference_facts(job: Job) -> dict[str, Any]:
    known = job.reference
    if known is None:
        return {}
    fidelity = None if known.fidelity is None else [round(value, 5) for value in known.fidelity.tolist()]
    facts = {"pictures": known.pictures, "count": known.count, "options": dict(known.options), "fidelity": fidelity}
    return {"reference": facts}


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
    pictures: PicturesLike,
    *,
    target: str | PictureLike | None = None,
    vocabulary: Vocabulary | str | Path | None = None,
    folder: str | Path | None = None,
    progress: Callable[[Progress], object] | bool | None = None,
    workers: Workers | None = None,
    directions: Mapping[str, Direction] | None = None,
    saes: Sequence[SparseAutoencoder] = (),
    sites: SitesLike = DEFAULT_SITES,
    strongest: int = STRONGEST,
    rank: RankedBy = "activation",
    strength: Strength | str | None = None,
    lenses: Literal["diffusion", "steering"] | Sequence[Literal["diffusion", "steering"]] = ("diffusion", "steering"),
    decode: str = "all",
    effect: str | Sequence[str] = "direct",
    vector_at: SiteLike | None = None,
    controls: int = 1,
    foils: int = 0,
    tokens: str = "all",
    seed: int = 0,
    n_seeds: int = 1,
    n_labels: int = 5,
    names: NamesMethod = "nearest",
    steps: int | None = None,
    guidance: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    scheduler: SchedulerName | None = None,
    preview: bool = False,
    batch_size: int | None = None,
    cache: bool = False,
    **unknown: Never,
) -> NotebookAtlas:
    """Looks at pictures through every lens: the main job of the package in one call.

    Args:
        pair: encoder and decoder, as `steerlens.load` returns them.
        pictures: one picture or several: `Picture`, path, PIL image, array or tensor (see `picture_arrays`).
        target: a text, picture or path that similarities refer to; by default each input itself.
        vocabulary: labels for the Logit Lens, or their file (see `read_vocabulary`); by default the pair's own.
        folder: run directory to write or resume; by default results stay in memory.
        progress: called with every event, whose payload is a finished `Reading` or `FinishedCells`, if any; True for a
            progress bar, False for none; by default a bar in a notebook or a terminal.
        workers: Ray workers that do the work, each with a copy of the pair; by default this process does it.
        directions: name -> direction (D,), group or region to look at besides the sites.
        saes: sparse autoencoders, as `load_sae` returns them, whose features the sites can name.
        sites: sites, or a text such as `resid_post,head.9-11.*`; by default the residual stream and every head, with
            autoencoders the residual stream and their strongest features (`resid_post,features`).
        strongest: features of each autoencoder, and neurons, that are shown of each input.
        rank: what makes them strong: `activation`, `effect` or `target`.
        strength: steering strength, `rho=1` or `s=40`; by default that of the pair's card.
        lenses: lenses whose pictures are decoded: `diffusion`, `steering` or both.
        decode: sites to decode: `all`, `top:K` for the K closest to the target before decoding, `above:X`, or
            `none`.
        effect: effect of steering that is shown: `direct`, what a site writes itself, everything after it frozen;
            `total`, the site scaled in the real forward pass, with a picture of its ablation, and the effect of
            ablating every head, decoded or not; or `direct,total`.
        vector_at: for total effects of directions, the point of the residual stream where they are added.
        controls: random directions steered as hard as each head; 0 for none.
        foils: other inputs whose write each head is shown with, steered as hard as its own; 0 for none.
        tokens: tokens that the Steering Lens writes to, for decoders of image tokens.
        seed: first seed of the decoder.
        n_seeds: number of seeds, counting up.
        n_labels: Logit Lens labels for every site.
        names: texts that label sites: `nearest`, `omp` (a sparse sum) or `textspan` (for heads, over all inputs).
        steps: denoising steps; by default those of the pair, as for the next options.
        guidance: classifier-free guidance scale; 1 for none.
        guidance_interval: shares of the steps, from 0 to 1, between which there is guidance.
        scheduler: the sampler.
        preview: leave out the autoencoder, for a blurred first look.
        batch_size: pictures decoded at once.
        cache: reuse traces of earlier runs; the weights must be as they were loaded.
        **unknown: no other argument is accepted.

    Returns:
        The atlas, which displays itself in a notebook.

    Raises:
        UsageError: if an argument is unknown or makes no sense for this pair.
        SteerlensError: if a picture cannot be read, a model fails or the run cannot be stored.
    """
    if unknown:
        raise _unknown_argument(next(iter(unknown)))
    options = LookOptions(
        sites=_sites_text(sites),
        strongest=strongest,
        rank=rank,
        strength=None if strength is None else str(as_strength(strength)),
        lenses=(lenses,) if isinstance(lenses, str) else lenses,  # type: ignore[arg-type]  # lists become tuples
        decode=decode,
        effect=effect,  # type: ignore[arg-type]
        vector_at=None if vector_at is None else str(as_site(vector_at)),
        controls=controls,
        foils=foils,
        tokens=tokens,
        seed=seed,
        n_seeds=n_seeds,
        n_labels=n_labels,
        names=names,
        steps=steps,
        guidance=guidance,
        guidance_interval=guidance_interval,
        scheduler=scheduler,
        preview=preview,
        batch_size=batch_size,
        cache=cache,
    )
    _check_kinds(vocabulary, directions, workers)
    autoencoders = _checked_saes(saes)
    if cache and any(isinstance(named, RegionPart) for named in (directions or {}).values()):
        raise UsageError(
            "cache has no effect with regions, which need the values of all tokens, and these are not kept; leave "
            "cache out."
        )
    inputs = as_pictures(pictures)
    goal = target if target is None or isinstance(target, str | Path) else _single(as_pictures(target, name="target"))
    labels = read_vocabulary(vocabulary, pair) if isinstance(vocabulary, str | Path) else vocabulary
    engine = run if workers is None else ray_engine(workers, partial(_copy, pair))
    with shown(progress) as on_progress:
        job = make_job(pair, inputs, options, goal, labels, directions, autoencoders, on_progress)
        events = look_in(pair, job, None if folder is None else Path(folder), engine)
        return run_to_end(events, on_progress)


_NAMES_ELSEWHERE = {
    "images": "pictures",
    "picture": "pictures",
    "lens": "lenses",
    "site": "sites",
    "seeds": "n_seeds",
    "labels": "n_labels",
    "out": "folder",
    "vector": "directions",
    "group": "directions",
    "region": "directions",
    "effects": "effect",
    "sae": "saes",
    "features": "strongest",
}
"""Names of the command line, and near ones, -> those of `look`."""


def _unknown_argument(name: str) -> UsageError:
    known = [key for key in signature(look).parameters if key not in ("pair", "unknown")]
    close = [_NAMES_ELSEWHERE[name]] if name in _NAMES_ELSEWHERE else difflib.get_close_matches(name, known, n=1)
    if name in ("device", "dtype", "encoder", "local", "neighbours"):
        return UsageError(f"look has no argument {name!r}: it is one of steerlens.load, which opens the pair.")
    hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(known)}."
    return UsageError(f"look has no argument {name!r}; {hint}")


def _check_kinds(vocabulary: Any, directions: Any, workers: Any) -> None:
    if vocabulary is not None and not isinstance(vocabulary, str | Path) and not hasattr(vocabulary, "scores"):
        raise UsageError(
            f"vocabulary is a file, a folder or a vocabulary such as TextVocabulary, not a {type(vocabulary).__name__}."
        )
    if directions is not None and not isinstance(directions, Mapping):
        raise UsageError(f"directions are a mapping of names to tensors, not a {type(directions).__name__}.")
    if workers is not None and not isinstance(workers, Workers):
        raise UsageError(f"workers are a steerlens.sweep.ray.cluster.Workers(count=...), not {workers!r}.")


def _checked_saes(saes: Any) -> list[SparseAutoencoder]:
    # A list, since the check would empty an iterator.
    autoencoders = list[Any](saes) if isinstance(saes, Iterable) else None
    if autoencoders is None or not all(isinstance(sae, SparseAutoencoder) for sae in autoencoders):
        raise UsageError("saes are sparse autoencoders in a list, each as steerlens.load_sae(FOLDER) returns it.")
    return autoencoders


def _single(targets: list[Picture]) -> Picture:
    if len(targets) != 1:
        raise UsageError(f"the target is one picture or text, not {len(targets)} pictures; look at each in turn.")
    return targets[0]


def _sites_text(sites: SitesLike) -> str:
    if isinstance(sites, str | Site):
        return str(sites)
    if not isinstance(sites, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"sites are Sites or texts such as 'L3H4' or 'heads', one or several, not {sites!r}.")
    return ",".join(part if isinstance(part, str) else str(as_site(part)) for part in sites)
