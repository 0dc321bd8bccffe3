"""Preparation of jobs: plan, target and selection from pictures and options, checked against the pair."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

from steerlens.atlas import EFFECTS, REAL_PASSES, CellsByPicture, Effect, Plan, make_plan
from steerlens.decoders import DecoderSpec, NeighboursDecoder
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.lenses import (
    Area,
    Direction,
    RegionPart,
    Strength,
    TokenSteeringLens,
    check_direction,
    check_place,
    direction_site,
    parse_tokens,
    reaching_sites,
)
from steerlens.limits import over_limit
from steerlens.naming import TextDecomposition
from steerlens.progress import Progress
from steerlens.saes import SparseAutoencoder
from steerlens.sites import Site, parse_sites
from steerlens.sweep.job import Job, Target, without_inputs
from steerlens.sweep.names import check_names, spans_of
from steerlens.sweep.neurons import trace_inputs
from steerlens.sweep.options import LookOptions, RankedBy
from steerlens.sweep.real_passes import total_lens
from steerlens.sweep.selection import Selection
from steerlens.sweep.survey import Surveyor, UnitSurvey, saes_of, surveyed, with_saes
from steerlens.sweep.targets import resolve_target
from steerlens.sweep.trace_cache import TraceCache, trace_cache
from steerlens.sweep.units import UnitRequest, refuse_more_units, unit_request
from steerlens.sweep.unused import (
    refuse_tokens,
    refuse_unused_in_decoding,
    refuse_unused_in_plan,
    refuse_unused_labels,
    refuse_unused_units,
)
from steerlens.vocabulary import Vocabulary
from steerlens.zoo import Card, Pair
from steerlens.zoo.identity import models_identity

_MAX_SEED = 2**63 - 1
"""The largest whole number that a generator and a parquet column take."""

Directions = Mapping[str, Direction]
"""Name -> direction (D,), group or region to look at besides the sites, or sparse autoencoder."""


def make_job(
    pair: Pair,
    pictures: Sequence[Picture],
    options: LookOptions,
    target: str | Path | Picture | None = None,
    vocabulary: Vocabulary | None = None,
    directions: Directions | None = None,
    saes: Sequence[SparseAutoencoder] = (),
    on_progress: Callable[[Progress], object] | None = None,
) -> Job:
    """Makes the job of an engine: plan, decoder options, target and selection.

    Where sites name features or neurons, every picture is traced first, to find those that are active on it.

    Args:
        pair: encoder and decoder.
        pictures: the inputs.
        options: options of the sweep.
        target: what similarities refer to: None for each input itself, a picture or its path, or a text.
        vocabulary: labels for the Logit Lens; by default the pair's own.
        directions: name -> direction (D,), group or region.
        saes: sparse autoencoders, whose names are distinct from those of `directions`.
        on_progress: called with the progress of the survey of neurons and features.

    Raises:
        UsageError: if a site, strength, text or number makes no sense for this pair, or an option has no effect.
    """
    spec, by_id = pair.encoder.spec, dict[str, Picture]()
    directions = with_saes(directions or {}, saes, pair.encoder)
    for picture in pictures:
        by_id.setdefault(picture_id(picture), picture)
    strength = default_strength(pair.card)
    for name, direction in directions.items():
        check_direction(direction, spec, pair.decoder.spec, name=name)
    request = unit_request(options, saes_of(directions), spec.n_layers, spec.n_heads)
    refuse_more_units(options, request, saes_of(directions), pair.encoder)
    # Before any picture is traced, so that what no picture decides is refused at once.
    plan = expected_plan(
        options, pictures, spec.n_layers, spec.n_heads, strength, pair.decoder.spec, directions, request
    )
    options = replace(options, sites=request.fixed)
    if options.preview and not getattr(pair.decoder, "previews", False):
        raise UsageError(f"{pair.decoder.spec.name} has no preview: only decoders with a MoVQ autoencoder do.")
    ranks = isinstance(pair.decoder, NeighboursDecoder)
    refuse_unused_in_decoding(options, pair.decoder.spec.defaults, pair.decoder.spec.name, ranks=ranks)
    labels = pair.vocabulary if vocabulary is None else vocabulary
    refuse_unused_labels(options, vocabulary=0 if labels is None else len(labels.names), own=vocabulary is not None)
    check_names(options.names, pair.encoder, labels, options.n_labels)
    tokens = _tokens_written_to(pair, options, plan.strength)
    traces = None if request.has_neurons else _kept_traces(pair, options, directions)
    resolved, survey = resolve_target(pair, target), None
    if not request.is_empty:
        survey = _survey(pair, options, request, directions, plan.strength, resolved, traces, by_id, on_progress)
        sizes = (spec.n_layers, spec.n_heads)
        # A picture may have fewer active features than a selection decodes: the options were checked above.
        chosen = replace(options, decode="all")
        plan = plan_of(chosen, pictures, *sizes, strength, pair.decoder.spec, directions, survey.own)
    index = pair.decoder if isinstance(pair.decoder, NeighboursDecoder) else None
    left_out = () if index is None else index.known(picture.sha256 for picture in pictures)
    job = Job(
        encoder=pair.encoder,
        decoder=without_inputs(pair.decoder, left_out),
        pictures=by_id,
        plan=plan,
        options=options.over(pair.decoder.spec.defaults),
        vocabulary=labels,
        target=resolved,
        directions=directions,
        n_labels=options.n_labels,
        names=options.names,
        spans=_spans(pair, options, plan, by_id, labels),
        tokens=tokens,
        vector_at=vector_place(options, plan, spec.n_layers),
        inputs=plan.pictures,
        traces=traces,
        selection=_selection(pair, options, resolved),
        reference=pair.reference,
        left_out=left_out,
        models=models_identity(pair),
        survey=survey,
    )
    if options.foils and job.reads_tokens:
        raise UsageError(
            f"{pair.decoder.spec.name} reads image tokens, and foils are for decoders of embeddings; set foils to 0."
        )
    real = dict.fromkeys(cell.site for id in _representative(plan) for cell in plan.of(id) if cell.lens in REAL_PASSES)
    total_lens(job).check(list(real))
    return job


def _representative(plan: Plan) -> tuple[str, ...]:
    """Pictures that together have every site of a plan."""
    return plan.pictures if isinstance(plan.cells, CellsByPicture) else plan.pictures[:1]


def _survey(
    pair: Pair,
    options: LookOptions,
    request: UnitRequest,
    directions: Directions,
    strength: Strength,
    target: Target,
    traces: TraceCache | None,
    pictures: Mapping[str, Picture],
    on_progress: Callable[[Progress], object] | None,
) -> UnitSurvey:
    all_tokens, encoder = pair.decoder.spec.consumes == "image_tokens", pair.encoder
    if all_tokens and options.rank != "activation":
        raise UsageError(
            f"rank {options.rank} compares image embeddings, and {pair.decoder.spec.name} reads image tokens: rank by "
            "activation."
        )
    surveyor = Surveyor(
        encoder=encoder,
        trace=partial(trace_inputs, encoder, neurons=request.has_neurons) if traces is None else traces.trace,
        directions=directions,
        strength=strength,
        target=target.direction,
        request=request,
        strongest=options.strongest,
        rank=options.rank,
        all_tokens=all_tokens,
    )
    return surveyed(surveyor.survey(pictures), on_progress)


def _spans(
    pair: Pair, options: LookOptions, plan: Plan, pictures: Mapping[str, Picture], labels: Vocabulary | None
) -> dict[Site, TextDecomposition]:
    if options.names != "textspan" or labels is None:
        return {}
    heads = dict.fromkeys(cell.site for cell in plan.of(plan.pictures[0]) if cell.site.kind == "head")
    return spans_of(pair.encoder, pictures.values(), list(heads), labels, options.n_labels)


def parse_effects(effect: str | Sequence[str]) -> tuple[Effect, ...]:
    """Reads `direct`, `total`, or both: comma-separated, or as a sequence.

    Raises:
        UsageError: if there is no such effect.
    """
    texts = [effect] if isinstance(effect, str) else list(effect)
    named = [part.strip() for text in texts for part in text.split(",")] or ["direct"]
    for name in named:
        if name not in EFFECTS:
            raise UsageError(f"effect must be direct, total, or direct,total, not {name!r}.")
    return tuple(known for known in EFFECTS if known in named)


def vector_place(options: LookOptions, plan: Plan, n_layers: int) -> Site | None:
    """Reads the place where directions are added for their total effect; None if there is no such effect.

    Raises:
        UsageError: if the place is no point of the model's residual stream, or there is nothing to add there.
    """
    if options.vector_at is None:
        return None
    if not any(cell.lens == "total" and cell.site.kind == "vector" for cell in plan.of(plan.pictures[0])):
        raise UsageError(
            f"vector_at {options.vector_at!r} says where directions are added in the real forward pass: it goes with "
            "directions and with effect total."
        )
    return check_place(Site.parse(options.vector_at), n_layers)


def picture_id(picture: Picture) -> str:
    """Id of an input picture in cells; equal files share it, and are computed once."""
    return picture.sha256[:12]


def expected_plan(
    options: LookOptions,
    pictures: Sequence[Picture],
    n_layers: int,
    n_heads: int,
    strength: Strength,
    decoder: DecoderSpec | None = None,
    directions: Directions | None = None,
    request: UnitRequest | None = None,
) -> Plan:
    """Plan before any picture is traced: as `plan_of`, with as many features and neurons as there can be.

    Args:
        options: options of the sweep, whose sites may name features and neurons.
        pictures: the inputs.
        n_layers: L.
        n_heads: H.
        strength: steering strength if the options have none.
        decoder: spec of the decoder.
        directions: content of named sites.
        request: the features and neurons, if they have been read from the options.

    Raises:
        UsageError: as `plan_of`.
    """
    if options.rank not in get_args(RankedBy):
        raise UsageError(f"features are ranked by {', '.join(get_args(RankedBy))}, not by {options.rank!r}.")
    if options.strongest < 1:
        raise UsageError(f"at least one feature is shown of each autoencoder, not {options.strongest}.")
    request = request or unit_request(options, saes_of(directions or {}), n_layers, n_heads)
    refuse_unused_units(options, request)
    units = None if request.is_empty else dict.fromkeys(map(picture_id, pictures), _placeholders(options, request))
    fixed = replace(options, sites=request.fixed)
    return plan_of(fixed, pictures, n_layers, n_heads, strength, decoder, directions, units)


def _placeholders(options: LookOptions, request: UnitRequest) -> tuple[Site, ...]:
    if words := over_limit("cells", options.strongest):
        raise UsageError(f"strongest asks for {words}.")
    return request.placeholders(options.strongest)


def plan_of(
    options: LookOptions,
    pictures: Sequence[Picture],
    n_layers: int,
    n_heads: int,
    strength: Strength,
    decoder: DecoderSpec | None = None,
    directions: Directions | None = None,
    own: Mapping[str, Sequence[Site]] | None = None,
) -> Plan:
    """Plan of the cells that options name, on an encoder of L layers and H heads.

    Args:
        options: options of the sweep.
        pictures: the inputs.
        n_layers: L.
        n_heads: H.
        strength: steering strength if the options have none.
        decoder: spec of the decoder. For a decoder of image tokens, sites that never reach it are left out of
            patterns, and refused if they are named.
        directions: name -> direction (D,), group, region or sparse autoencoder, whose parts are sites.
        own: id of a picture -> its neurons and features.

    Raises:
        UsageError: if a site or a number makes no sense for this encoder, or an option has no effect.
    """
    if options.n_seeds < 1:
        raise UsageError(f"at least one seed is needed, not {options.n_seeds}.")
    if not 0 <= options.seed <= options.seed + options.n_seeds <= _MAX_SEED:
        last = _MAX_SEED - options.n_seeds
        raise UsageError(f"seeds are whole numbers: the first is from 0 to {last}, not {options.seed}.")
    for name, number in (("seeds", options.n_seeds), ("labels", options.n_labels)):
        if words := over_limit(name, number):
            raise UsageError(f"the plan asks for {words}.")
    if options.n_labels < 0:
        raise UsageError(f"the number of labels cannot be negative, but it is {options.n_labels}.")
    source = None if decoder is None else decoder.tokens
    sites: tuple[Site, ...] = ()
    if options.sites.strip() and decoder is not None and source is not None:
        sites = reaching_sites(options.sites, n_layers, n_heads, decoder)
    elif options.sites.strip():
        sites = parse_sites(options.sites, n_layers, n_heads)
    named = tuple(
        direction_site(name, direction)
        for name, direction in (directions or {}).items()
        if not isinstance(direction, SparseAutoencoder)
    )
    plan = make_plan(
        [picture_id(picture) for picture in pictures],
        tuple(dict.fromkeys((*sites, *named))),
        n_layers if source is None else source.last_layer(n_layers) + 1,
        strength=strength if options.strength is None else Strength.parse(options.strength),
        seeds=range(options.seed, options.seed + options.n_seeds),
        lenses=options.lenses,
        controls=options.controls,
        effects=parse_effects(options.effect),
        foils=options.foils,
        own=own,
    )
    refuse_unused_in_plan(options, plan)
    return plan


def default_strength(card: Card | None) -> Strength:
    """Default strength of a pair: its card's, or rho = 1, which adds a vector as long as the final residual."""
    return Strength("rho", 1.0) if card is None else Strength.parse(card.strength)


def _selection(pair: Pair, options: LookOptions, target: Target) -> Selection:
    selection = Selection.parse(options.decode)
    tokens = pair.decoder.spec.consumes == "image_tokens"
    if selection.rule != "all" and tokens and target.direction is not None and target.tokens is None:
        raise UsageError(
            f"decode {selection} ranks sites by the image tokens that {pair.decoder.spec.name} would decode, and a "
            "text has no image tokens to compare them with; take a picture as the target, or decode all."
        )
    return selection


def _kept_traces(pair: Pair, options: LookOptions, directions: Directions) -> TraceCache | None:
    # What a head reads from a region is computed from the values of all tokens, which the cache does not store.
    regions = any(isinstance(named, RegionPart) for named in directions.values())
    return trace_cache(pair) if options.cache and not regions else None


def _tokens_written_to(pair: Pair, options: LookOptions, strength: Strength) -> Area | None:
    area, decoder = parse_tokens(options.tokens), pair.decoder.spec
    if decoder.consumes == "image_embedding":
        refuse_tokens(options, decoder.name)
        return None
    TokenSteeringLens(pair.encoder, pair.decoder, strength, area).weights()  # refuses unread tokens
    return area
