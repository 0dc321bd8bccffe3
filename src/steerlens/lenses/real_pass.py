"""Changes of components in the real forward pass, many rows per pass, everything after a change reacting.

A change acts on every token at the place where its component enters the residual stream:

    scaled    c -> (1 + k) c       the component, k times more of it (s = 1 + k)
    ablated   c -> 0               the component taken out; of a direction, its share of the residual stream
    control   c -> c + d           a random direction d added at the same place, as strong as the scaled component

Layers before the change compute the same as in the clean pass, so a pass begins at the changed layer. The first change
of a pass meets the values of the clean pass and is an addition known beforehand; later members of a group are scaled as
they are in the running pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import (
    Encoder,
    Inputs,
    NativeEncoder,
    Prefix,
    record_from,
    record_prefix,
    resume,
    resume_to,
    trace_with_prefix,
)
from steerlens.errors import ModelError, UsageError
from steerlens.interventions import Add, Intervention, Scale
from steerlens.lenses.components import Direction, Group
from steerlens.lenses.regions import RegionPart
from steerlens.lenses.sae_parts import place_of
from steerlens.lenses.strength import Strength
from steerlens.saes import SparseAutoencoder
from steerlens.sites import Site
from steerlens.trace import Trace

ChangeKind = Literal["scaled", "ablated", "control"]

TOKENS = 16384
"""Tokens of one forward pass, over all its rows, which bounds its memory."""

REMOVED = Strength("s", 0.0)
"""Strength of an ablation."""


@dataclass(frozen=True)
class Change:
    """Change of one component in the real forward pass.

    Attributes:
        site: a head, a neuron, `attn_out`, `mlp_out`, a named group, region or direction, or a part of an autoencoder.
        kind: whether the component is scaled or ablated, or a random direction is added in its place.
        draw: number of the random direction of a control, from 0.
    """

    site: Site
    kind: ChangeKind = "scaled"
    draw: int = 0


@dataclass(frozen=True, eq=False)
class CleanPass:
    """Clean forward pass of B pictures, from which changed passes begin.

    Attributes:
        inputs: inputs of the encoder.
        trace: decomposition of the final residual.
        prefix: arguments of every block; None for an encoder whose blocks cannot be called one after another, whose
            passes then begin at the first layer.
    """

    inputs: Inputs
    trace: Trace
    prefix: Prefix | None

    def __len__(self) -> int:
        return len(self.trace)


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a batch of changed passes.

    Attributes:
        picture: its picture in the clean pass.
        additions: additions by place.
        factors: factor of each token by component, applied to its value in the running pass.
    """

    picture: int
    additions: Mapping[Site, Float[Tensor, "T D"]]
    factors: Mapping[Site, Float[Tensor, "T"]]


@dataclass(frozen=True, eq=False)
class Part:
    """One place of a component.

    Attributes:
        place: where it enters the residual stream.
        source: the component itself, if it is a site of the model.
        write: what is multiplied when it is scaled.
        present: what is removed when it is ablated: its write, or the residual's component along a direction.
    """

    place: Site
    source: Site | None
    write: Float[Tensor, "B T D"]
    present: Float[Tensor, "B T D"]


def clean_pass(
    encoder: Encoder,
    inputs: Inputs | Tensor,
    trace: Trace | None = None,
    *,
    attention: bool = False,
    neurons: bool = False,
) -> CleanPass:
    """Runs the clean pass of pictures.

    Args:
        encoder: any encoder.
        inputs: the output of `encoder.preprocess`.
        trace: their trace, if it is known.
        attention: record attention for the trace, which regions need.
        neurons: record neurons for the trace, which steering them needs.

    Raises:
        UsageError: if the inputs have another shape than the encoder takes, or it does not show its neurons.
        ModelError: if its native model fails.
    """
    named: Inputs = {"pixel_values": inputs} if isinstance(inputs, Tensor) else inputs
    if isinstance(encoder, NativeEncoder):
        try:
            if trace is not None:
                return CleanPass(named, trace, record_prefix(encoder, named))
            return CleanPass(named, *trace_with_prefix(encoder, named, attention=attention, neurons=neurons))
        except ModelError:  # full passes need no such blocks, and raise again if the model itself fails
            pass
    if trace is None and neurons:
        if not isinstance(encoder, NativeEncoder):
            raise UsageError(f"{encoder.spec.name} does not show the neurons of its MLPs.")
        trace = encoder.trace(named, attention=attention, neurons=True)
    return CleanPass(named, encoder.trace(named, attention=attention) if trace is None else trace, None)


def places_of(site: Site, direction: Direction | None, at: Site | None) -> tuple[tuple[Site, Site | None], ...]:
    """Returns the places where a component enters the residual stream, each with the component that enters there.

    Args:
        site: the component.
        direction: the direction, group, region or sparse autoencoder of a named site.
        at: the place where directions are added.

    Raises:
        UsageError: if the component has no such place.
    """
    if not site.is_write:
        raise UsageError(
            f"{site} is the residual stream, which holds everything up to there: scaling it scales no component. The "
            "total lens takes heads, neurons, features, attn_out.N, mlp_out.N, groups, regions and directions."
        )
    if site.kind == "head":
        return ((Site("attn_out", site.layer), site),)
    if isinstance(direction, SparseAutoencoder):
        return ((place_of(direction, site), None),)
    if isinstance(direction, Group):
        return tuple(place for member in direction.members for place in places_of(member, None, None))
    if isinstance(direction, RegionPart):
        layers = {head.layer for head in direction.heads}
        if len(layers) > 1:
            raise UsageError(
                f"{site} reads with heads of layers {', '.join(map(str, sorted(layers)))}: what later heads read "
                "changes once earlier ones are changed, so their part has no total effect of its own. Name heads of "
                "one layer, or show the direct effect."
            )
        return ((Site("attn_out", layers.pop()), None),)
    if site.kind == "vector":
        if at is None:
            raise UsageError(
                f"{site} is a direction, which the real forward pass has no place for: say where it is added "
                "(--vector-at resid_post.N), or show the direct effect."
            )
        return ((_stream(at), None),)
    return ((site, site),)


def check_place(at: Site, n_layers: int) -> Site:
    """Returns the place where directions are added, if it is a point of the residual stream.

    Raises:
        UsageError: if it is another kind of site, or the model has no such layer.
    """
    if at.kind not in ("embed", "resid_pre", "resid_mid", "resid_post"):
        raise UsageError(
            f"a direction is added to the residual stream, not at {at}: name embed, resid_pre.N, resid_mid.N or "
            "resid_post.N."
        )
    return at.check(n_layers, 1)


def alike(changes: Sequence[Change]) -> list[list[Change]]:
    """Groups changes whose direct counterparts are computed together."""
    groups: dict[tuple[str, bool], list[Change]] = {}
    for change in dict.fromkeys(changes):
        groups.setdefault((change.kind, removes_direction(change)), []).append(change)
    return list(groups.values())


def removes_direction(change: Change) -> bool:
    """True for the ablation of a direction, which removes the residual's component along it."""
    return change.kind == "ablated" and change.site.kind == "vector"


def run_rows(encoder: Encoder, clean: CleanPass, rows: Sequence[Row], after: Sequence[int] | None = None) -> Tensor:
    """Runs changed passes, all in one batch.

    Args:
        encoder: the encoder.
        clean: the clean pass.
        rows: the N rows; the pass begins at the first layer that any of them changes.
        after: layers whose residuals are returned, in rising order; None for the readout.

    Returns:
        Embeddings (N,E), or the residual stream of all tokens after K layers, (N,K,T,D).
    """
    interventions, pictures = _interventions(encoder, rows), [row.picture for row in rows]
    first = min(intervention.site.layer for intervention in interventions)
    if clean.prefix is not None and isinstance(encoder, NativeEncoder):
        if after is None:
            return resume(encoder, clean.prefix, first, pictures, interventions)
        return resume_to(encoder, clean.prefix, first, after, pictures, interventions)
    B, index = len(clean), torch.tensor(pictures)
    inputs = {
        name: tensor.index_select(0, index.to(tensor.device)) if tensor.shape[:1] == (B,) else tensor
        for name, tensor in clean.inputs.items()
    }
    if after is None:
        return encoder.embed(inputs, interventions)
    sites = [Site("resid_post", layer) for layer in after]
    recorded = encoder.record(inputs, sites, interventions)
    return torch.stack([recorded[site] for site in sites], dim=1)


def record_clean(encoder: Encoder, clean: CleanPass, sites: Sequence[Site]) -> dict[Site, Float[Tensor, "B T D"]]:
    """Records values on every token in the clean pass, in at least float32."""
    values: dict[Site, Tensor] = {}
    for layer in sorted({site.layer for site in sites}):
        of_layer = [site for site in dict.fromkeys(sites) if site.layer == layer]
        if clean.prefix is not None and isinstance(encoder, NativeEncoder):
            values |= record_from(encoder, clean.prefix, of_layer)
        else:
            values |= encoder.record(clean.inputs, of_layer)
    return {site: value.to(torch.promote_types(value.dtype, torch.float32)) for site, value in values.items()}


def _interventions(encoder: Encoder, rows: Sequence[Row]) -> list[Intervention]:
    T, D, device = encoder.spec.n_tokens, encoder.spec.width, encoder.device
    changes: list[Intervention] = []
    same, nothing = torch.ones(T, device=device), torch.zeros(T, D, device=device)
    for site in dict.fromkeys(site for row in rows for site in row.factors):
        factors = torch.stack([row.factors.get(site, same) for row in rows])
        changes.append(Scale(site, factor=factors))
    for site in dict.fromkeys(site for row in rows for site in row.additions):
        added = torch.stack([row.additions.get(site, nothing) for row in rows])
        changes.append(Add(site, vector=added))
    return changes


def _stream(at: Site) -> Site:
    return replace(at, kind="resid_pre", layer=0) if at.kind == "embed" else at
