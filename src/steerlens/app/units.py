"""Features and neurons in the explorer: the strongest of an input, and jobs that show one of them.

A sweep surveys every picture for active units before it plans. The explorer knows the unit on view, so it plans that
one alone, and a slider that is dragged costs no survey.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steerlens.app.recipe import Recipe
from steerlens.atlas import Atlas, Reading
from steerlens.errors import UsageError
from steerlens.lenses import Strength
from steerlens.report import sae_lines, unit_data
from steerlens.saes import SparseAutoencoder, value_at
from steerlens.sites import Site
from steerlens.sweep import (
    Job,
    LookOptions,
    TracedPicture,
    default_strength,
    make_job,
    plan_of,
    read_picture,
    trace_picture,
    unit_effects,
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


@dataclass(frozen=True, eq=False)
class StrongestUnits:
    """The features or neurons that are strongest on an input.

    Only their similarities depend on the strength and the target. All else is measured once for an input, and `listed`
    adds the similarities.

    Attributes:
        job: the job that measured them.
        traced: the traced input.
        atlas: the input's reading, with nothing decoded.
        active: number of the autoencoder's features that are active on the input; None for neurons.
    """

    job: Job
    traced: TracedPicture
    atlas: Atlas
    active: int | None

    def listed(self, strength: Strength, target: Float[Tensor, "E"]) -> Mapping[str, Any]:
        """The list as the report of a sweep has it.

        Args:
            strength: strength of the steering.
            target: embedding that similarities refer to.

        Returns:
            `units` and `sites` as in the data of a report, the number of `active` features, and the autoencoder in
            words.
        """
        (reading,) = self.atlas.readings
        sites = [unit.site for unit in reading.units]
        effects = unit_effects(self.job.encoder, self.traced.trace, sites, self.job.directions, strength, target)
        units = tuple(
            replace(unit, similarity=similarity) for unit, (_, similarity) in zip(reading.units, effects, strict=True)
        )
        return {
            "units": unit_data(self.atlas, replace(reading, units=units)),
            "sites": {str(site): _site(reading, site) for site in sites},
            "active": self.active,
            "sae": next(iter(sae_lines(self.atlas)), None),
        }


def strongest_units(recipe: Recipe, units: str) -> StrongestUnits:
    """Surveys an input for its strongest features or neurons.

    Args:
        recipe: a view without a component.
        units: the name of an autoencoder, or `neurons.LAYER`.

    Raises:
        UsageError: if there is no such autoencoder or layer, or none of its features is active.
    """
    model, picture = recipe.model, recipe.picture
    opened = model.autoencoders.get(units)
    if opened is None and not (units.startswith(_NEURONS) and units.removeprefix(_NEURONS).isdecimal()):
        raise UsageError(f"no sparse autoencoder called {units[:60]!r} is open.")
    sites = f"neuron.{units.removeprefix(_NEURONS)}" if opened is None else f"feature.{units}"
    options = LookOptions(sites=sites, lenses=("steering",), controls=0, strongest=STRONGEST)
    saes = () if opened is None else (opened.sae,)
    job = make_job(model.pair, [picture.picture], options, None, model.labels, saes=saes)
    traced = trace_picture(job, picture.id)
    reading = read_picture(job, picture.id, job.plan.of(picture.id), traced)
    facts = {} if job.survey is None else job.survey.facts({sae.name: sae for sae in saes})
    atlas = Atlas(job.encoder.spec, job.decoder.spec, job.plan, (reading,), (), {"saes": facts})
    active = None if job.survey is None else job.survey.active.get(units, {}).get(picture.id)
    return StrongestUnits(job, traced, atlas, active)


def _site(reading: Reading, site: Site) -> dict[str, Any]:
    """A unit as the sites of a report have it, with nothing decoded."""
    labels = [(label.name, round(label.score, 4)) for label in reading.top_labels(site)]
    return {"label": site.label, "kind": site.kind, "layer": site.layer, "head": site.head, "labels": labels}
