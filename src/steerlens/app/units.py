"""Features and neurons in the explorer: the strongest of an input, and jobs that show one of them.

A sweep surveys every picture for active units before it plans. The explorer knows the unit on view, so it plans that
one alone, and a slider that is dragged costs no survey.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from steerlens.app.recipe import Recipe
from steerlens.atlas import Atlas, Reading
from steerlens.errors import UsageError
from steerlens.report import sae_lines, unit_data
from steerlens.saes import SparseAutoencoder, value_at
from steerlens.sites import Site
from steerlens.sweep import (
    Job,
    LookOptions,
    Target,
    TracedPicture,
    default_strength,
    make_job,
    plan_of,
    read_picture,
    trace_picture,
    with_saes,
)

STRONGEST = 24
"""Features or neurons in a list."""

_NEURONS = "neurons."


def unit_job(clean: Job, recipe: Recipe) -> Job:
    """The job of one neuron or part of an autoencoder.

    Args:
        clean: the job of the clean reconstruction of the same view.
        recipe: the view.
    """
    pair, picture = recipe.model.pair, recipe.picture
    directions = with_saes({}, recipe.saes, pair.encoder)
    spec, decoder = pair.encoder.spec, pair.decoder.spec
    plan = plan_of(
        replace(recipe.options, sites=""),
        [picture.picture],
        spec.n_layers,
        spec.n_heads,
        default_strength(pair.card),
        decoder,
        directions,
        {picture.id: recipe.members},
    )
    return replace(clean, plan=plan, directions=directions)


def check_active(job: Job, traced: TracedPicture, site: Site) -> None:
    """Checks that a unit writes something on the readout tokens of a picture.

    Raises:
        UsageError: if it is silent, or there is no such neuron.
    """
    if job.reads_tokens:
        return
    sae = job.directions.get(site.name)
    if site.kind == "neuron":
        neurons = traced.trace.neurons
        activation = neurons.activations[neurons.projections[site.layer].check(site).layer][0, :, site.index]
    elif site.kind == "feature" and isinstance(sae, SparseAutoencoder):
        activation = sae.encode(value_at(sae, traced.trace))[0, :, site.index]
    else:
        return
    if not bool(activation.any()):
        raise UsageError(f"{site.label} is silent on this picture, so it writes nothing that could be steered.")


def unit_list(recipe: Recipe, units: str, target: Target) -> Mapping[str, Any]:
    """The features or neurons that are strongest on an input, as the report of a sweep lists them.

    Args:
        recipe: a view without a component.
        units: the name of an autoencoder, or `neurons.LAYER`.
        target: what similarities refer to.

    Returns:
        `units` and `sites` as in the data of a report, the number of `active` features, and the autoencoder in words.

    Raises:
        UsageError: if there is no such autoencoder or layer, or none of its features is active.
    """
    model, picture = recipe.model, recipe.picture
    opened = model.autoencoders.get(units)
    if opened is None and not (units.startswith(_NEURONS) and units.removeprefix(_NEURONS).isdecimal()):
        raise UsageError(f"no sparse autoencoder called {units[:60]!r} is open.")
    sites = f"neuron.{units.removeprefix(_NEURONS)}" if opened is None else f"feature.{units}"
    options = LookOptions(
        sites=sites, lenses=("steering",), strength=recipe.view.strength, controls=0, strongest=STRONGEST
    )
    saes = () if opened is None else (opened.sae,)
    job = replace(make_job(model.pair, [picture.picture], options, None, model.labels, saes=saes), target=target)
    traced = trace_picture(job, picture.id)
    reading = read_picture(job, picture.id, job.plan.of(picture.id), traced)
    facts = {} if job.survey is None else job.survey.facts({sae.name: sae for sae in saes})
    atlas = Atlas(job.encoder.spec, job.decoder.spec, job.plan, (reading,), (), {"saes": facts})
    return {
        "units": unit_data(atlas, reading),
        "sites": {str(unit.site): _site(reading, unit.site) for unit in reading.units},
        "active": None if job.survey is None else job.survey.active.get(units, {}).get(picture.id),
        "sae": next(iter(sae_lines(atlas)), None),
    }


def _site(reading: Reading, site: Site) -> dict[str, Any]:
    """A unit as the sites of a report have it, with nothing decoded."""
    labels = [(label.name, round(label.score, 4)) for label in reading.top_labels(site)]
    return {"label": site.label, "kind": site.kind, "layer": site.layer, "head": site.head, "labels": labels}
