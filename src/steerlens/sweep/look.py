"""From pictures and options to an atlas: what the command line, the Python API and an app all call."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from steerlens.atlas.atlas import Atlas, CellResult, Reading
from steerlens.atlas.plan import LensName, Plan, make_plan
from steerlens.decoders.base import DecodeOptions, DecoderSpec, SchedulerName, clean_conditioning
from steerlens.errors import UsageError
from steerlens.images import Picture, load_picture, load_pictures
from steerlens.lenses.components import Direction, direction_site
from steerlens.lenses.image_tokens import TokenSteeringLens
from steerlens.lenses.regions import Area, parse_tokens
from steerlens.lenses.strength import Strength
from steerlens.lenses.token_trace import check_direction, reaching_sites
from steerlens.progress import Progress, run_to_end
from steerlens.runs.store import RunWriter, load_run, open_run
from steerlens.sites import Site, parse_sites
from steerlens.sweep.engine import FinishedCells, Job, Target, run
from steerlens.sweep.identity import identity, models_identity
from steerlens.sweep.ray.engine import Workers, check_cluster, run_on_ray
from steerlens.sweep.selection import Choice
from steerlens.sweep.trace_cache import TraceCache, trace_cache
from steerlens.vocabulary import Vocabulary
from steerlens.zoo.cards import Card
from steerlens.zoo.pair import Pair
from steerlens.zoo.vocabularies import read_vocabulary

DEFAULT_SITES = "resid_post,heads"

Engine = Callable[[Job, frozenset[str], frozenset[str]], Iterator[Progress]]
"""Carries a job out: told which cells and which readings are there already, it yields the rest."""

_MAX_SEED = 2**63 - 1
"""The largest whole number that a generator and a parquet column take."""


@dataclass(frozen=True)
class LookOptions:
    """What to look at and how; None takes the pair's own default.

    Attributes:
        sites: sites and patterns, as `steerlens.sites.parse_sites` reads them.
        strength: how hard to steer.
        seed: first seed of the decoder.
        n_seeds: how many seeds, counted up from the first.
        controls: random directions for each steered site.
        steps: denoising steps.
        guidance: classifier-free guidance scale.
        guidance_interval: shares of the steps, from noise to picture, between which there is guidance.
        scheduler: the sampler.
        preview: leave the decoder's autoencoder out.
        batch_size: pictures decoded at once.
        n_labels: labels kept for every site.
        lenses: which lenses decode.
        directions: directions (D,), groups and regions by name, which are looked at besides the sites.
        tokens: for a decoder of image tokens, those that the Steering Lens writes to, as
            `steerlens.lenses.regions.parse_tokens` reads them.
        decode: what is decoded, as `steerlens.sweep.selection.Choice` reads it; all else is ranked without decoding.
        cache: whether traces are kept from run to run (see `steerlens.sweep.trace_cache`); only for weights that are as
            they were loaded, since the cache knows them by their files.
    """

    sites: str = DEFAULT_SITES
    strength: Strength | None = None
    seed: int = 0
    n_seeds: int = 1
    controls: int = 1
    steps: int | None = None
    guidance: float | None = None
    guidance_interval: tuple[float, float] | None = None
    scheduler: SchedulerName | None = None
    preview: bool | None = None
    batch_size: int | None = None
    n_labels: int = 5
    lenses: tuple[LensName, ...] = ("diffusion", "steering")
    directions: Mapping[str, Direction] = field(default_factory=dict)
    tokens: str = "all"
    decode: str = "all"
    cache: bool = False


def make_job(
    pair: Pair,
    pictures: Sequence[Picture],
    options: LookOptions,
    target: str | Path | Picture | None = None,
    vocabulary: Vocabulary | None = None,
) -> Job:
    """Puts together what the engine needs: the plan, the decoder's options, the target.

    Args:
        pair: encoder and decoder.
        pictures: the inputs.
        options: what to look at and how.
        target: what similarities are measured against: None for each input itself, a picture or its path, or a text.
        vocabulary: what the Logit Lens reads with; by default the pair's own.

    Raises:
        UsageError: if a site, strength, text or number does not make sense for this pair.
    """
    spec, by_id = pair.encoder.spec, dict[str, Picture]()
    for picture in pictures:
        by_id.setdefault(picture_id(picture), picture)
    plan = plan_of(
        options, pictures, spec.n_layers, spec.n_heads, default_strength(pair.card), decoder=pair.decoder.spec
    )
    for direction in options.directions.values():
        if not isinstance(direction, Tensor):
            direction.check(spec)
    _check_preview(pair, options)
    tokens = _tokens_written_to(pair, options, plan.strength)
    resolved = resolve_target(pair, target)
    return Job(
        encoder=pair.encoder,
        decoder=pair.decoder,
        pictures=by_id,
        plan=plan,
        options=decode_options(pair.decoder.spec.defaults, options),
        vocabulary=pair.vocabulary if vocabulary is None else vocabulary,
        target=resolved,
        directions=options.directions,
        n_labels=options.n_labels,
        tokens=tokens,
        traces=_kept_traces(pair, options),
        choice=_choice(pair, options, resolved),
        models=models_identity(pair),
    )


def _check_preview(pair: Pair, options: LookOptions) -> None:
    if options.preview and not getattr(pair.decoder, "previews", False):
        raise UsageError(f"{pair.decoder.spec.name} has no preview: only decoders with a MoVQ autoencoder do.")


def _choice(pair: Pair, options: LookOptions, target: Target) -> Choice:
    choice = Choice.parse(options.decode)
    tokens = pair.decoder.spec.consumes == "image_tokens"
    if choice.kind != "all" and tokens and target.direction is not None and target.tokens is None:
        raise UsageError(
            f"decode {choice} ranks sites by what is steered: {pair.decoder.spec.name} is given image tokens, of which "
            "a text has none to compare with; take a picture as the target, or decode all."
        )
    return choice


def _kept_traces(pair: Pair, options: LookOptions) -> TraceCache | None:
    # What heads read from a region is taken from the values of all tokens, which are not kept.
    regions = any(not isinstance(one, Tensor) and one.kind == "region" for one in options.directions.values())
    return trace_cache(pair) if options.cache and not regions else None


def _tokens_written_to(pair: Pair, options: LookOptions, strength: Strength) -> Area | None:
    area, decoder = parse_tokens(options.tokens), pair.decoder.spec
    if decoder.consumes == "image_embedding":
        if area is not None:
            raise UsageError(
                f"tokens {options.tokens!r} to write to make no sense here: {decoder.name} reads one image embedding, "
                "no image tokens. For what heads read from a part of the picture, name a region."
            )
        return None
    for direction in options.directions.values():
        check_direction(direction, pair.encoder.spec, decoder)
    TokenSteeringLens(pair.encoder, pair.decoder, strength, area).weights()  # refuses what the decoder does not read
    return area


def picture_id(picture: Picture) -> str:
    """The name of an input picture in cells: equal files have equal names, so that they are looked at once."""
    return picture.sha256[:12]


def plan_of(
    options: LookOptions,
    pictures: Sequence[Picture],
    n_layers: int,
    n_heads: int,
    strength: Strength,
    decoder: DecoderSpec | None = None,
) -> Plan:
    """The cells that options ask for, on an encoder of so many layers and heads.

    Args:
        options: what to look at and how.
        pictures: the inputs.
        n_layers: L.
        n_heads: H.
        strength: how hard to steer if the options do not say.
        decoder: what the decoder reads: sites that never reach one of image tokens are left out of patterns, and
            refused where they are named.

    Raises:
        UsageError: if a site or a number does not make sense for this encoder.
    """
    if options.n_seeds < 1:
        raise UsageError(f"at least one seed is needed, not {options.n_seeds}.")
    if not 0 <= options.seed <= options.seed + options.n_seeds <= _MAX_SEED:
        raise UsageError(f"seeds are whole numbers from 0 to {_MAX_SEED}, not {options.seed}.")
    if options.n_labels < 0:
        raise UsageError(f"the number of labels cannot be negative, as {options.n_labels} is.")
    source = None if decoder is None else decoder.tokens
    sites: tuple[Site, ...] = ()
    if options.sites.strip() and decoder is not None and source is not None:
        sites = reaching_sites(options.sites, n_layers, n_heads, decoder)
    elif options.sites.strip():
        sites = parse_sites(options.sites, n_layers, n_heads)
    directions = tuple(direction_site(name, one) for name, one in options.directions.items())
    return make_plan(
        [picture_id(picture) for picture in pictures],
        tuple(dict.fromkeys((*sites, *directions))),
        n_layers if source is None else source.last_layer(n_layers) + 1,
        strength=options.strength or strength,
        seeds=range(options.seed, options.seed + options.n_seeds),
        lenses=options.lenses,
        controls=options.controls,
    )


def default_strength(card: Card | None) -> Strength:
    """The strength that suits a pair: its card's, or rho = 1, which adds as much as the final residual itself."""
    return Strength("rho", 1.0) if card is None else Strength.parse(card.strength)


def decode_options(defaults: DecodeOptions, options: LookOptions) -> DecodeOptions:
    """A decoder's own options with the user's in their place."""
    names = ("steps", "guidance", "guidance_interval", "scheduler", "batch_size", "preview")
    given = {name: getattr(options, name) for name in names}
    return replace(defaults, **{name: value for name, value in given.items() if value is not None})


def resolve_target(pair: Pair, target: str | Path | Picture | None) -> Target:
    """What similarities are measured against, as an embedding.

    Raises:
        UsageError: if a text is neither the path of a picture nor known to the pair.
    """
    if target is None:
        return Target()
    if isinstance(target, str) and not _names_a_file(target):
        return Target(f"the text “{target}”", pair.text_direction(target), target)
    picture = target if isinstance(target, Picture) else load_picture(target)
    inputs = pair.encoder.preprocess([picture.image])
    tokens = None
    if pair.decoder.spec.consumes == "image_tokens":
        tokens = clean_conditioning(pair.encoder, pair.decoder, inputs).values[0]
    embedding = pair.encoder.embed(inputs)[0]
    return Target(f"the picture {picture.name}", embedding.float(), picture.sha256, tokens)


def _names_a_file(text: str) -> bool:
    """Whether a text means a file, even one that is not there: `cat.png` is a slip, not a text to compare with."""
    try:
        return Path(text).is_file() or Path(text).suffix.lower() in Image.registered_extensions()
    except OSError:  # a text longer than any name of a file
        return False


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
        manifest = {**what, "provenance": pair.provenance, "seconds": round(time.time() - started, 1)}
        return Atlas(job.encoder.spec, job.decoder.spec, job.plan, tuple(readings), tuple(results), manifest)
    with open_run(folder, what, {"provenance": pair.provenance}) as writer:
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
        **options: the fields of `LookOptions`; `strength` may be a text such as `rho=1`.

    Returns:
        The atlas, which shows itself in a notebook.

    Raises:
        UsageError: if an option is unknown or makes no sense for this pair.
        SteerlensError: as the parts do.
    """
    if isinstance(options.get("strength"), str):
        options["strength"] = Strength.parse(options["strength"])
    try:
        chosen = LookOptions(**options)
    except TypeError as error:
        raise UsageError(f"look: {error}.") from None
    given = [pictures] if isinstance(pictures, Picture | str | Path) else list(pictures)
    loaded = load_pictures(given)
    labels = read_vocabulary(vocabulary, pair) if isinstance(vocabulary, str | Path) else vocabulary
    job = make_job(pair, loaded, chosen, target, labels)
    engine = run if workers is None else ray_engine(workers, partial(_copy, pair))
    events = look_in(pair, job, None if folder is None else Path(folder), engine)
    return run_to_end(events, progress)
