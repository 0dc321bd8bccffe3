"""Lines that `steerlens lens` prints about sparse autoencoders and the strongest features and neurons."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from steerlens.atlas import Atlas, Reading, UnitReading
from steerlens.sweep import Job

_SHOWN = 6
"""Units named for each ranking."""

_COMPARED = 8
"""Fewest neurons whose rank correlation is given: that of a few is chance."""


def fit_lines(job: Job) -> Iterator[str]:
    """Lines on how well each autoencoder fits the inputs, with a warning about a poor fit."""
    if job.survey is None:
        return
    for name, fit in job.survey.fits.items():
        active = list(job.survey.active[name].values())
        span = f"{min(active)}" if min(active) == max(active) else f"{min(active)} to {max(active)}"
        yield f"{name}, on these inputs: {fit.words}; {span} active features an input"
        if fit.is_poor:
            yield (
                f"WARNING: {name} FITS THESE INPUTS POORLY: its features say little about them. Was it trained on this "
                "model, at this site, on such pictures and on these tokens?"
            )


def unit_lines(atlas: Atlas, reading: Reading) -> Iterator[str]:
    """Names the strongest features and neurons of an input by activation, effect and decoded picture."""
    units = [unit for unit in reading.units if unit.site.kind in ("feature", "neuron")]
    if not units:
        return
    best = sorted(units, key=lambda unit: -(unit.activation or 0.0))[:_SHOWN]
    yield "  most active: " + ", ".join(f"{unit.site.label} {unit.activation:.2f}" for unit in best)
    best = sorted(units, key=lambda unit: -unit.effect)[:_SHOWN]
    yield "  largest direct effect: " + ", ".join(f"{unit.site.label} {unit.effect:.2f}" for unit in best)
    scores = [score for kind in ("feature", "neuron") for score in atlas.ranked("steering", reading.id, kind=kind)]
    scores.sort(key=lambda score: -score.similarity)
    if scores:
        named = ", ".join(f"{score.site.label} {score.similarity:.2f}" for score in scores[:_SHOWN])
        compared = [score for score in scores if score.beats_control is not None]
        beaten = sum(bool(score.beats_control) for score in compared)
        control = f"; {beaten} of {len(compared)} beat their control" if compared else ""
        yield f"  steered pictures closest to {reading.target}: {named}{control}"
    yield from _second_order_lines([unit for unit in units if unit.site.kind == "neuron"])


def _second_order_lines(neurons: Sequence[UnitReading]) -> Iterator[str]:
    """Names the neurons with the largest second-order effects, and compares predictions with real ablation."""
    measured = [unit for unit in neurons if unit.second_order is not None and unit.ablated is not None]
    if neurons and not measured:
        yield "  second-order effects: not measured (attention of this encoder cannot be followed token by token)"
    if not measured:
        return
    best = sorted(measured, key=lambda unit: -(unit.second_order or 0.0))[:_SHOWN]
    yield "  largest second-order effect, through later attention: " + ", ".join(
        f"{unit.site.label} {unit.second_order:.3f} (direct {unit.effect:.3f}, ablated {unit.ablated:.3f})"
        for unit in best
    )
    if len(measured) >= _COMPARED:
        import torch

        from steerlens.studies.shared import spearman

        real = torch.tensor([unit.ablated or 0.0 for unit in measured])
        predicted = {
            "direct": [unit.effect for unit in measured],
            "second order": [unit.second_order or 0.0 for unit in measured],
            "together": [unit.together or 0.0 for unit in measured],
        }
        told = ", ".join(f"{name} {float(spearman(torch.tensor(row), real)):+.2f}" for name, row in predicted.items())
        yield f"  rank correlation with real ablation over {len(measured)} neurons: {told}"


def units_json(reading: Reading) -> list[dict[str, Any]]:
    """Measurements of features and neurons as JSON values, without their tokens."""
    return [
        {
            "site": str(unit.site),
            "activation": unit.activation,
            "effect": unit.effect,
            "similarity": unit.similarity,
            "second_order": unit.second_order,
            "together": unit.together,
            "ablated": unit.ablated,
        }
        for unit in reading.units
    ]


def saes_json(atlas: Atlas) -> Mapping[str, Any]:
    """Facts about the autoencoders of a run."""
    return atlas.manifest.get("saes", {})
