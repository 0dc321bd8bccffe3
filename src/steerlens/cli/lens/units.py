"""What `steerlens lens` says of sparse autoencoders and of the strongest features and neurons."""

from collections.abc import Iterator, Mapping
from typing import Any

from steerlens.atlas import Atlas, Reading
from steerlens.sweep import Job, SaeFit

_SHOWN = 6
"""Units named for each ranking."""


def fit_lines(job: Job) -> Iterator[str]:
    """Says how well each autoencoder fits the inputs; a poor fit in capitals."""
    if job.survey is None:
        return
    for name, fit in job.survey.fits.items():
        active = list(job.survey.active[name].values())
        span = f"{min(active)}" if min(active) == max(active) else f"{min(active)} to {max(active)}"
        yield f"{name}, on these inputs: {fit_words(fit)}; {span} active features an input"
        if fit.is_poor:
            yield (
                f"WARNING: {name} FITS THESE INPUTS POORLY: its features say little about them. Was it trained on this "
                "model, at this site, on such pictures and on these tokens?"
            )


def fit_words(fit: SaeFit) -> str:
    """Fit in one line."""
    fidelity = fit.fidelity
    explained = f"explained variance {fidelity.explained_variance:.2f}"
    if fidelity.explained_variance != fidelity.explained_variance:
        explained = "explained variance unknown, as there is one value"
    where = "after the readout" if fidelity.after_readout else "of what it reads"
    return (
        f"{explained}, L0 {fidelity.l0:.1f}, {100 * fidelity.dead_share:.0f} % of its features silent ({fit.tokens}); "
        f"error {100 * fidelity.error_norm:.0f} % of the value's norm, cosine {fidelity.cosine:.2f} {where}"
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


def units_json(reading: Reading) -> list[dict[str, Any]]:
    """Measurements of features and neurons as JSON values, without their tokens."""
    return [
        {
            "site": str(unit.site),
            "activation": unit.activation,
            "effect": unit.effect,
            "similarity": unit.similarity,
        }
        for unit in reading.units
    ]


def saes_json(atlas: Atlas) -> Mapping[str, Any]:
    """Facts about the autoencoders of a run."""
    return atlas.manifest.get("saes", {})
