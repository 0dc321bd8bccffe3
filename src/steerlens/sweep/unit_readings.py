"""Readings of units: how active each planned feature and neuron is on a picture, where, and what it does."""

from collections.abc import Sequence

import torch
from torch import Tensor

from steerlens.atlas import UnitReading
from steerlens.lenses import activations_on_tokens, by_sae, sae_of
from steerlens.saes import value_at
from steerlens.sites import SAE_KINDS, Site
from steerlens.sweep.cells import TracedPicture
from steerlens.sweep.effects import unit_effects
from steerlens.sweep.job import Job
from steerlens.sweep.neuron_effects import neuron_effects
from steerlens.sweep.neurons import activations as neuron_activations


@torch.no_grad()
def units_of(job: Job, planned: Sequence[Site], traced: TracedPicture) -> tuple[UnitReading, ...]:
    """Measures the units among the planned sites of one picture.

    Args:
        job: the job.
        planned: sites of the picture's cells.
        traced: the traced picture.
    """
    sites = [site for site in dict.fromkeys(planned) if site.kind in ("neuron", *SAE_KINDS)]
    if not sites:
        return ()
    activations, tokens = dict[Site, float](), dict[Site, Tensor]()
    for own in by_sae(sites, job.directions).values():
        sae = sae_of(own[0], job.directions)
        if not sae.reads_embedding:
            on_tokens = activations_on_tokens(job.encoder, traced.inputs, sae, own)[0]
            tokens |= dict(zip(own, on_tokens.float().cpu(), strict=True))
        encoded = sae.encode(value_at(sae, traced.trace))[0].mean(dim=0)
        activations |= {site: float(encoded[site.index]) for site in own if site.kind == "feature"}
    if neurons := [site for site in sites if site.kind == "neuron"]:
        tokens |= neuron_activations(job.encoder, traced.inputs, neurons)
        recorded = traced.trace.neurons.activations
        activations |= {site: float(recorded[site.layer][0, :, site.index].mean()) for site in neurons}
    through = neuron_effects(job.encoder, traced.trace, traced.inputs, neurons)
    effects = unit_effects(job.encoder, traced.trace, sites, job.directions, job.plan.strength, traced.target)
    return tuple(
        UnitReading(
            site,
            activations.get(site),
            effect,
            similarity,
            tokens.get(site),
            **({} if site not in through else vars(through[site])),
        )
        for site, (effect, similarity) in zip(sites, effects, strict=True)
    )
