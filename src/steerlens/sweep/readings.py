"""Readings of input pictures: every measurement that needs no decoding."""

from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from steerlens.atlas import Cell, Reading
from steerlens.encoders import EncoderSpec
from steerlens.images import Picture
from steerlens.lenses import SteeringLens, visible_norm
from steerlens.scores import cosine_similarity
from steerlens.sites import Site, all_heads, layer_sites
from steerlens.sweep.ablations import ablates_heads, ablation_effects
from steerlens.sweep.cells import TracedPicture
from steerlens.sweep.job import Job
from steerlens.sweep.names import labels_of
from steerlens.sweep.unit_readings import units_of
from steerlens.trace import Trace
from steerlens.zoo import seen_part


def reading_of(job: Job, id: str, cells: Sequence[Cell], traced: TracedPicture) -> Reading:
    """Computes the reading of one picture.

    Args:
        job: the job.
        id: id of the picture.
        cells: all its planned cells, finished or not: a resumed run must not lose their labels.
        traced: the traced picture.
    """
    trace, target = traced.trace, traced.target
    encoder = job.encoder
    L, H = encoder.spec.n_layers, encoder.spec.n_heads
    heads, centred = trace.stack(all_heads(L, H))[0].float(), encoder.spec.centred
    final = trace.final[0].float()
    if centred:
        heads, final = heads - heads.mean(-1, keepdim=True), final - final.mean(-1, keepdim=True)
    labels = ()
    planned = [cell.site for cell in cells if cell.lens not in ("control", "foil", "total_control")]
    if job.vocabulary is not None:
        sites = dict.fromkeys([Site("embed"), *layer_sites("resid_post", L), *planned])
        labels = labels_of(job, job.vocabulary, trace, list(sites))
    return Reading(
        picture=_noted(job.pictures[id], encoder.spec),
        id=id,
        embedding=trace.embedding[0].float().cpu(),
        target=job.target.description,
        target_similarity=float(cosine_similarity(trace.embedding[0], target)),
        labels=labels,
        attention=trace.attention[0].float().mean(dim=2).half().cpu() if trace.recorded_attention is not None else None,
        write_norms=(visible_norm(heads, centred=False) / visible_norm(final, centred=False)).view(L, H).cpu(),
        direct_similarity=cosine_similarity(heads.flatten(1), final.flatten()).view(L, H).cpu(),
        decomposition_error=traced.error,
        unusual=_unusual(job, id, trace),
        steered_similarity=None if job.reads_tokens else _head_similarity(job, trace, target),
        ablation_effects=ablation_effects(encoder, traced) if ablates_heads(cells) else None,
        units=units_of(job, planned, traced),
    )


def _unusual(job: Job, id: str, trace: Trace) -> float | None:
    """Percentage of the pair's reference pictures that are less unusual than the input; None without a reference."""
    if job.reference is None:
        return None
    view = seen_part(job.pictures[id].image, job.encoder.spec)
    return job.reference.percentile(view, trace.embedding[0].float().cpu())


def _head_similarity(job: Job, trace: Trace, target: Tensor) -> Float[Tensor, "L H"]:
    """Cosine of every head's steered embedding with the target: a ranking that needs no decoding."""
    L, H = job.encoder.spec.n_layers, job.encoder.spec.n_heads
    steered = SteeringLens(job.encoder, job.plan.strength).embeddings(trace, all_heads(L, H))[0]
    return cosine_similarity(steered.float(), target.float()).view(L, H).cpu()


def _noted(picture: Picture, spec: EncoderSpec) -> Picture:
    """Adds a note to the picture if the encoder does not see all of it."""
    (width, height), geometry = picture.image.size, spec.geometry
    if geometry is not None and geometry.resize == "unknown":
        return picture
    view = spec.view((width, height))
    if view.sees_all:
        return picture
    left, top, right, bottom = view.visible
    note = f"the encoder sees its centre alone, {right - left} x {bottom - top} of {width} x {height} pixels"
    return replace(picture, note="; ".join(filter(None, (picture.note, note))))
