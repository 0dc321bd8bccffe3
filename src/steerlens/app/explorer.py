"""The explorer: views become numbers and pictures, by the engine of the sweeps. Knows nothing of the web.

Long work is a generator of events, so that the caller can stop after each: an `Answer` is an event for the page,
`Progress` says how far the work is.
"""

import math
from collections import OrderedDict
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.app.answers import Answer, ablation_numbers, label_scores, numbers, result_answer
from steerlens.app.head_ablations import HeadAblations
from steerlens.app.inputs import InputPicture, InputStore
from steerlens.app.models import OpenModel
from steerlens.app.part_scores import TOKEN_SITES, embedding_scores, token_scores
from steerlens.app.policy import Policy
from steerlens.app.recipe import Recipe
from steerlens.app.run_target import run_target
from steerlens.app.units import StrongestUnits, check_active, strongest_units, unit_job
from steerlens.app.view import LookRequest, UnitListRequest, View
from steerlens.atlas import Atlas, CellResult, Plan, Reading
from steerlens.decoders import DecodeOptions
from steerlens.errors import UsageError
from steerlens.lenses import Strength
from steerlens.progress import Progress
from steerlens.sweep import (
    FinishedCells,
    Job,
    LookOptions,
    SteeredCell,
    Target,
    TracedPicture,
    batch_size,
    decode_cells,
    facts_beside_identity,
    make_job,
    read_picture,
    resolve_target,
    trace_picture,
    unfinished_cells,
)

_Value = TypeVar("_Value")

_PREVIEW_SHARE = 3
"""Factor by which a preview takes fewer denoising steps."""

_PREVIEW_STEPS = 2
"""Fewest denoising steps of a preview."""


class Recent(Generic[_Value]):
    """The most recently used values by key. Safe between threads."""

    def __init__(self, most: int) -> None:
        self._most, self._values, self._lock = most, OrderedDict[Any, _Value](), Lock()

    def get(self, key: Any) -> _Value | None:
        """Returns a value, or None if it is not there any more."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Any, value: _Value) -> _Value:
        """Keeps a value and returns it."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A view ready to decode: its job, the traced input, and its steered cell."""

    recipe: Recipe
    job: Job
    traced: TracedPicture
    steered: SteeredCell


def _sweep(recipe: Recipe, target: Any) -> Job:
    model = recipe.model
    return make_job(
        model.pair,
        [recipe.picture.picture],
        recipe.options,
        target,
        model.vocabulary,
        recipe.directions,
        recipe.saes,
    )


class Explorer:
    """Answers views about open models and input pictures.

    Methods run on one thread, the worker's; only `inputs` may be used from others.

    Args:
        models: the open models; the first is the default.
        policy: limits of the visitors.
        run: a finished run of the first model, whose pictures the page shows.

    Attributes:
        models: the open models by name.
        run: the run, or None.
        inputs: the input pictures.
    """

    def __init__(self, models: Sequence[OpenModel], policy: Policy | None = None, run: Atlas | None = None) -> None:
        if not models:
            raise UsageError("the explorer needs a model.")
        self.models: Mapping[str, OpenModel] = {model.name: model for model in models}
        self.inputs = InputStore(policy or Policy())
        self.run = run
        self._traced: Recent[TracedPicture] = Recent(16)
        self._readings: Recent[Reading] = Recent(32)
        self._targets: Recent[Target] = Recent(32)
        self._results: Recent[CellResult] = Recent(512)
        self._units: Recent[StrongestUnits] = Recent(16)
        self._ablations: Recent[HeadAblations] = Recent(64)

    def model(self, name: str = "") -> OpenModel:
        """Returns an open model; the first without a name.

        Raises:
            UsageError: if no open model has this name.
        """
        if not name:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise UsageError(f"no model called {name!r} is open; open are {', '.join(self.models)}.")
        return self.models[name]

    def recipe(self, view: View) -> Recipe:
        """Resolves a view against its model and input.

        Raises:
            UsageError: if the view names a model, an input, a site or a patch that is not there.
        """
        if self.belongs_to_run(view) and (target := self.run_target):
            view = replace(view, target=target[0], target_input=target[1])
        recipe = Recipe(view, self.model(view.model), self.inputs.get(view.input))
        _ = recipe.members, recipe.autoencoder
        return recipe

    def reading(self, view: View) -> Reading:
        """Computes labels, attention, norms of writes and scores of all heads for a view's input."""
        key = (view.model, view.input, view.target, view.target_input)
        known = self._readings.get(key)
        if known is not None:
            return known
        # The labels of every layer; those of components come with their pictures.
        recipe = self.recipe(replace(view.clean(), lens="diffusion"))
        job, traced = self._job(recipe), self._trace(recipe)
        cells = job.plan.of(recipe.picture.id)
        return self._readings.put(key, read_picture(job, recipe.picture.id, cells, traced))

    def atlas(self, view: View) -> Atlas:
        """Returns the run's own atlas for the view's input, or an atlas of its reading with nothing decoded."""
        if self.run is not None and self.belongs_to_run(view):
            return self.run.only([view.input])
        recipe, reading = self.recipe(view.clean()), self.reading(view)
        pair, job = recipe.model.pair, self._job(recipe)
        manifest = {
            "provenance": pair.provenance.to_json(),
            **facts_beside_identity(job),
            "inputs": {reading.id: {"name": reading.picture.name, "sha256": reading.picture.sha256}},
        }
        return Atlas(pair.encoder.spec, pair.decoder.spec, job.plan, (reading,), (), manifest)

    def belongs_to_run(self, view: View) -> bool:
        """True if the run has the view's input, seen by the view's model and compared with the run's own target.

        A view of such an input that names no target has that of the run.
        """
        if self.run is None or self.model(view.model) is not self.model() or view.input not in self.run.plan.pictures:
            return False
        target = self.run_target
        return target is not None and (view.target, view.target_input) in (("", ""), target)

    @property
    def run_target(self) -> tuple[str, str] | None:
        """The target of the run, as `run_target` returns it; None without a run."""
        return None if self.run is None else run_target(self.run, self.inputs)

    def warm(self) -> None:
        """Reads the first example, so that the page has something to click at once; nothing is decoded yet."""
        self.atlas(View(self.inputs.examples()[0].id))

    @torch.no_grad()
    def scores(self, view: View) -> dict[str, Any]:
        """Similarity of every head, MLP and attention output with the target, without decoding.

        Returns:
            As `embedding_scores`; for a decoder of image tokens, as `token_scores`.
        """
        recipe = self.recipe(replace(view, site="", members=(), patches=(), lens="diffusion"))
        traced, pair = self._trace(recipe), recipe.model.pair
        if pair.decoder.spec.consumes == "image_embedding":
            strength = None if view.lens == "diffusion" else Strength.parse(view.strength)
            return embedding_scores(pair.encoder, traced.trace, self._target(recipe, traced), strength)
        options = LookOptions(sites=TOKEN_SITES, strength=view.strength, controls=0)
        job = make_job(pair, [recipe.picture.picture], options, None, recipe.model.vocabulary)
        lens = "diffusion" if view.lens == "diffusion" else "steering"
        return token_scores(replace(job, target=self._resolved(recipe)), traced, recipe.picture.id, lens)

    def units(self, request: UnitListRequest) -> Mapping[str, Any]:
        """The features of an autoencoder, or the neurons of a layer, that are strongest on the view's input.

        Raises:
            UsageError: if there is no such autoencoder or layer, or none of its features is active.
        """
        view, recipe = request.view, self.recipe(request.view.clean())
        key = (recipe.model.name, recipe.picture.id, request.units)
        known = self._units.get(key) or self._units.put(key, strongest_units(recipe, request.units))
        return known.listed(Strength.parse(view.strength), self._target(recipe, known.traced))

    def look(self, request: LookRequest) -> Iterator[Progress | Answer]:
        """Answers a request: numbers at once, a preview, the picture at full quality, then the strip of strengths.

        Yields:
            Answers `numbers`, `preview`, `picture` and `strip`, and progress between them.

        Raises:
            UsageError: if the view makes no sense for the model.
        """
        prepared = self._prepare(request.view)
        yield Answer("numbers", numbers(prepared.job, prepared.steered, prepared.recipe.site))
        quick = self._quick(prepared.job.options)
        known = self._known(prepared, prepared.job.options)
        if known is None and quick is not None:
            (preview,) = yield from self._decoded([prepared], quick)
            yield Answer("preview", result_answer(preview, prepared.recipe.site))
        if request.refine or quick is None or known is not None:
            (result,) = yield from self._decoded([prepared], prepared.job.options)
            yield Answer("picture", result_answer(result, prepared.recipe.site))
        if request.strengths:
            strip = [self._prepare(replace(request.view, strength=strength)) for strength in request.strengths]
            results = yield from self._decoded(strip, quick or prepared.job.options)
            shown = zip(request.strengths, results, strict=True)
            yield Answer(
                "strip",
                {
                    "strengths": [
                        {"strength": text, **result_answer(result, prepared.recipe.site)} for text, result in shown
                    ]
                },
            )

    def ablate(self, view: View) -> Iterator[Progress | Answer]:
        """Takes the view's sites out of the real forward pass, everything downstream reacting.

        Yields:
            An answer `ablation` with the change of the embedding and the labels before and after; then `before` and
            `after`, the reconstructions, first as `preview` if they take long.

        Raises:
            UsageError: if nothing is to be ablated, or the model has no such site.
        """
        if not view.sites:
            raise UsageError("nothing is ablated yet: click heads away on the map.")
        clean, ablated = self._prepare(view.clean()), self._prepare(replace(view, lens="ablation", patches=()))
        vocabulary = ablated.recipe.model.labels
        yield Answer("ablation", ablation_numbers(clean.steered, ablated.steered, vocabulary, ablated.recipe.members))
        quick = self._quick(clean.job.options)
        if quick is not None and self._known(ablated, ablated.job.options) is None:
            results = yield from self._decoded([clean, ablated], quick)
            yield self._pair_answer("ablation-preview", results, ablated.recipe)
        results = yield from self._decoded([clean, ablated], clean.job.options)
        yield self._pair_answer("ablation-pictures", results, ablated.recipe)

    def ablate_all(self, view: View) -> Iterator[Answer]:
        """Ablates every head of the view's input, one at a time, by real forward passes; nothing is decoded.

        Yields:
            An answer `layer` for each layer, as `HeadAblations.answers`.
        """
        recipe = self.recipe(replace(view.clean(), target="", target_input=""))
        key = (recipe.model.name, recipe.picture.id)
        known = self._ablations.get(key) or self._ablations.put(key, HeadAblations())
        yield from known.answers(recipe.model.pair.encoder, self._trace(recipe))

    @staticmethod
    def _pair_answer(kind: str, results: Sequence[CellResult], recipe: Recipe) -> Answer:
        before, after = (result_answer(result, recipe.site) for result in results)
        return Answer(kind, {"before": before, "after": after})

    def labels(self, view: View, count: int = 5) -> list[tuple[str, float]]:
        """The labels closest to the view's embedding; empty without a vocabulary."""
        prepared = self._prepare(view)
        return label_scores(prepared.recipe.model.labels, prepared.steered.conditioning, count)

    def job_of(self, recipe: Recipe) -> Job:
        """The sweep that contains a view's cell: the same as that of the copied command."""
        return _sweep(recipe, self._target_source(recipe))

    def target_picture(self, view: View) -> InputPicture | None:
        """The input that is the target, or None."""
        return self.inputs.get(view.target_input) if view.target_input else None

    def _job(self, recipe: Recipe) -> Job:
        # The resolved target is kept, so that it is not computed again for every view.
        if recipe.is_unit:
            return unit_job(self._job(replace_view(recipe, recipe.view.clean())), recipe)
        return replace(_sweep(recipe, None), target=self._resolved(recipe))

    def _target_source(self, recipe: Recipe) -> Any:
        other = self.target_picture(recipe.view)
        return other.picture if other is not None else recipe.view.target or None

    def _resolved(self, recipe: Recipe) -> Target:
        view = recipe.view
        key = (recipe.model.name, view.target, view.target_input)
        known = self._targets.get(key)
        # A text is never read as a path here: texts come from visitors.
        if known is None and view.target:
            direction = recipe.model.pair.text_direction(view.target)
            known = self._targets.put(key, Target(f"the text “{view.target}”", direction, view.target))
        if known is None:
            known = self._targets.put(key, resolve_target(recipe.model.pair, self._target_source(recipe)))
        return known

    def _target(self, recipe: Recipe, traced: TracedPicture) -> Float[Tensor, "E"]:
        direction = self._resolved(recipe).direction
        return traced.trace.embedding[0].float() if direction is None else direction.to(traced.trace.embedding).float()

    def _trace(self, recipe: Recipe) -> TracedPicture:
        neurons = recipe.site.kind == "neuron"
        key = (recipe.model.name, recipe.picture.id, neurons)
        known = self._traced.get(key)
        if known is None:
            job = self._job(recipe if neurons else replace_view(recipe, recipe.view.clean()))
            known = self._traced.put(key, trace_picture(replace(job, target=Target()), recipe.picture.id))
        return known

    def _prepare(self, view: View) -> _Prepared:
        recipe = self.recipe(view)
        job, traced = self._job(recipe), self._trace(recipe)
        traced = replace(traced, target=self._target(recipe, traced))
        if recipe.is_unit:
            check_active(job, traced, recipe.site)
        cell = recipe.cell(job.plan)
        plan = Plan((cell,), job.plan.strength, job.plan.seeds, job.plan.n_layers)
        (steered,) = unfinished_cells(replace(job, plan=plan), traced, [cell])
        return _Prepared(recipe, job, traced, steered)

    def _decoded(
        self, prepared: Sequence[_Prepared], options: DecodeOptions
    ) -> Generator[Progress, None, list[CellResult]]:
        """Decodes views of one model that differ in no option of the decoder; returns their results in order."""
        missing = [part for part in prepared if self._known(part, options) is None]
        if missing:
            job = replace(missing[0].job, options=options)
            cells = [part.steered for part in missing]
            done: list[CellResult] = []
            for event in decode_cells(job, cells, batch_size(job)):
                if isinstance(event.payload, FinishedCells):
                    done.extend(event.payload.results)
                yield replace(event, payload=None)
            for part, result in zip(missing, done, strict=True):
                self._results.put(_key(part, options), result)
            results = {id(part): result for part, result in zip(missing, done, strict=True)}
        else:
            results = {}
        found = [results.get(id(part)) or self._known(part, options) for part in prepared]
        return [result for result in found if result is not None]

    def _known(self, prepared: _Prepared, options: DecodeOptions) -> CellResult | None:
        return self._results.get(_key(prepared, options))

    @staticmethod
    def _quick(options: DecodeOptions) -> DecodeOptions | None:
        """Options of a preview; None if the picture itself takes as few steps."""
        steps = max(_PREVIEW_STEPS, math.ceil(options.steps / _PREVIEW_SHARE))
        return None if options.scheduler == "none" or steps >= options.steps else replace(options, steps=steps)


def replace_view(recipe: Recipe, view: View) -> Recipe:
    """The recipe of another view of the same model and input."""
    return Recipe(view, recipe.model, recipe.picture)


def _key(prepared: _Prepared, options: DecodeOptions) -> tuple[Any, ...]:
    view = prepared.recipe.view
    members = (prepared.recipe.site, prepared.recipe.members, view.patches, view.target, view.target_input)
    return (prepared.recipe.model.name, prepared.steered.cell, members, options)
