"""Ablation of single components: the true effect on the image embedding, total and direct.

*Total*: the component's write is replaced on every token of a real forward pass, and everything downstream reacts.
*Direct*: it is replaced in the final residual of the readout tokens alone, `readout(r_L - h + h')`.

The replacement is nothing (`zero`), the mean write over reference pictures (`mean`), or the write for another picture
(`resample`). Effects compare the clean embedding `e` with the ablated embedding `e'`:

    unsigned   1 - cos(e', e)                 distance that the embedding moves, in any direction
    signed     cos(e, t) - cos(e', t)         similarity with a target t that is lost; negative if it grows

References: K. Wang et al., "Interpretability in the Wild", arXiv 2211.00593 (mean ablation);
L. Chan et al., "Causal Scrubbing", 2022 (resampling); N. Nanda, "Attribution Patching", 2023.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Inputs, NativeEncoder, Prefix, record_from, record_prefix, resume
from steerlens.errors import UsageError
from steerlens.interventions import Add, ByRow, Intervention
from steerlens.lenses import read_out
from steerlens.progress import Progress
from steerlens.saes import SparseAutoencoder
from steerlens.scores import cosine_similarity
from steerlens.sites import Site, layer_sites
from steerlens.studies.shared.components import Components

Ablation = Literal["zero", "mean", "resample"]
ABLATIONS: tuple[Ablation, ...] = get_args(Ablation)

Objective = Callable[[Float[Tensor, "B E"]], Float[Tensor, "B"]]
"""Maps embeddings to scores, which ablation is expected to lower."""

HeadWrites = Mapping[Site, Float[Tensor, "#B T D"]]
"""Writes by site, on every token; one row for all pictures, or one per picture."""


@dataclass(frozen=True, eq=False)
class Ablated:
    """Embeddings of B pictures after ablating each of N components by itself.

    Attributes:
        sites: the N components.
        clean: embeddings without ablation.
        total: embeddings from real forward passes.
        direct: embeddings from the final residual alone.
    """

    sites: tuple[Site, ...]
    clean: Float[Tensor, "B E"]
    total: Float[Tensor, "B N E"]
    direct: Float[Tensor, "B N E"]


def unsigned_effect(clean: Float[Tensor, "B E"], ablated: Float[Tensor, "B N E"]) -> Float[Tensor, "B N"]:
    """Distance by which ablation moves the embedding: `1 - cos(e', e)`, in [0,2]."""
    return 1 - cosine_similarity(ablated, clean[:, None])


def signed_effect(
    clean: Float[Tensor, "B E"], ablated: Float[Tensor, "B N E"], target: Float[Tensor, "B E"]
) -> Float[Tensor, "B N"]:
    """Similarity with a target that ablation costs: `cos(e, t) - cos(e', t)`, in [-2,2]."""
    return cosine_similarity(clean, target)[:, None] - cosine_similarity(ablated, target[:, None])


def mean_writes(
    encoder: NativeEncoder, batches: Sequence[Inputs], sites: Sequence[Site], sae: SparseAutoencoder | None = None
) -> dict[Site, Tensor]:
    """Computes the mean write of each site on every token, (1,T,D), over all pictures of the batches.

    Raises:
        UsageError: if there is no picture.
    """
    sums: dict[Site, Tensor] = {}
    count, components = 0, Components(tuple(sites), sae)
    for inputs in batches:
        prefix = record_prefix(encoder, inputs)
        count += len(prefix)
        for group in components.by_layer():
            for site, writes in components.record(encoder, prefix, group).items():
                added = writes.float().sum(dim=0, keepdim=True)
                sums[site] = sums[site] + added if site in sums else added
    if count == 0:
        raise UsageError("a mean ablation needs reference pictures.")
    return {site: total / count for site, total in sums.items()}


def by_layer(sites: Sequence[Site]) -> list[list[Site]]:
    """Groups parts of the model by layer, from the first layer to the last.

    Raises:
        UsageError: if a site belongs to no layer.
    """
    return Components(tuple(sites)).by_layer()


def ablate(
    encoder: NativeEncoder,
    prefix: Prefix,
    sites: Sequence[Site],
    ablation: Ablation,
    *,
    means: HeadWrites | None = None,
    others: Prefix | None = None,
    batch: int = 64,
    sae: SparseAutoencoder | None = None,
) -> Generator[Progress, None, Ablated]:
    """Ablates each component by itself, many per batch, on passes that begin at the component's layer.

    Yields progress in sites, layer after layer, and returns the embeddings.

    Args:
        encoder: the encoder.
        prefix: the clean pass of B pictures.
        sites: heads, neurons, `attn_out` or `mlp_out` of any layers, or features of an autoencoder.
        ablation: replacement of a write.
        means: mean writes, for `mean`; see `mean_writes`.
        others: for `resample`, the clean pass of B other pictures, whose writes replace those of the same row.
        batch: rows of a forward pass.
        sae: the autoencoder of the features.

    Raises:
        UsageError: if the ablation lacks its means or its other pictures.
    """
    if ablation == "mean" and means is None:
        raise UsageError("a mean ablation needs the means over reference pictures.")
    if ablation == "resample" and (others is None or len(others) != len(prefix)):
        raise UsageError(f"a resample ablation of {len(prefix)} pictures needs as many other pictures.")
    B = len(prefix)
    total: dict[Site, Tensor] = {}
    direct: dict[Site, Tensor] = {}
    final = final_residual(encoder, prefix)
    done, components = 0, Components(tuple(sites), sae)
    for group in components.by_layer():
        own = components.record(encoder, prefix, group)
        put = replacements(encoder, group, ablation, means, others, own, sae)
        total |= _total(encoder, prefix, components, group, put, batch)
        direct |= direct_embeddings(encoder, final, own, put)
        done += len(group)
        yield Progress("ablating", done, len(sites), "sites")
    stacked = [torch.stack([by_site[site] for site in sites], dim=1) for by_site in (total, direct)]
    if stacked[0].shape[0] != B:
        raise UsageError("the passes do not belong to the same pictures.")
    return Ablated(tuple(sites), prefix.embedding, *stacked)


def replacements(
    encoder: NativeEncoder,
    sites: Sequence[Site],
    ablation: Ablation,
    means: HeadWrites | None,
    others: Prefix | None,
    own: HeadWrites,
    sae: SparseAutoencoder | None = None,
) -> dict[Site, Float[Tensor, "#B T D"]]:
    """Replacements of the writes of a layer's sites."""
    if ablation == "zero":
        return {site: torch.zeros_like(own[site][:1]) for site in sites}
    if ablation == "mean" and means is not None:
        return {site: means[site].to(own[site]) for site in sites}
    if others is None:
        raise UsageError("a resample ablation needs other pictures.")
    return Components(tuple(sites), sae).record(encoder, others, sites)


@torch.no_grad()
def final_residual(encoder: NativeEncoder, prefix: Prefix) -> Float[Tensor, "B R D"]:
    """Final residual of the readout tokens, in float32."""
    last = Site("resid_post", encoder.spec.n_layers - 1)
    readout = torch.tensor(encoder.readout_tokens, device=encoder.device)
    return record_from(encoder, prefix, [last])[last].index_select(1, readout).float()


def _total(
    encoder: NativeEncoder,
    prefix: Prefix,
    components: Components,
    sites: Sequence[Site],
    put: HeadWrites,
    batch: int,
) -> dict[Site, Tensor]:
    B, layer = len(prefix), components.place(sites[0]).layer
    rows = [(picture, site) for site in sites for picture in range(B)]
    embeddings: list[Tensor] = []
    for start in range(0, len(rows), batch):
        chosen = rows[start : start + batch]
        changes = _row_interventions(components, chosen, put)
        embeddings.append(resume(encoder, prefix, layer, [picture for picture, _ in chosen], changes))
    together = torch.cat(embeddings).unflatten(0, (len(sites), B))
    return dict(zip(sites, together, strict=True))


def _row_interventions(components: Components, rows: Sequence[tuple[int, Site]], put: HeadWrites) -> list[Intervention]:
    changes: list[Intervention] = []
    for site in dict.fromkeys(site for _, site in rows):
        places = tuple(place for place, (_, other) in enumerate(rows) if other == site)
        value = put[site]
        if value.shape[0] > 1:
            value = value[[rows[place][0] for place in places]]
        inner = components.replaced(site, value)
        changes.append(ByRow(inner.site, inner=inner, rows=places))
    return changes


@torch.no_grad()
def direct_embeddings(
    encoder: NativeEncoder, final: Float[Tensor, "B R D"], own: HeadWrites, put: HeadWrites
) -> dict[Site, Float[Tensor, "B E"]]:
    """Embeddings with each site's write replaced in the final residual of the readout tokens alone.

    Args:
        encoder: the encoder.
        final: see `final_residual`.
        own: write of each site.
        put: replacement of each write.
    """
    readout = torch.tensor(encoder.readout_tokens, device=encoder.device)
    changed = [final + (put[site].float() - own[site].float()).index_select(1, readout) for site in own]
    return dict(zip(own, read_out(encoder, torch.stack(changed, dim=1)).unbind(dim=1), strict=True))


def attribution(
    encoder: NativeEncoder,
    inputs: Inputs,
    prefix: Prefix,
    sites: Sequence[Site],
    objective: Objective,
    ablation: Ablation = "zero",
    *,
    means: HeadWrites | None = None,
    others: Prefix | None = None,
    sae: SparseAutoencoder | None = None,
) -> Float[Tensor, "B N"]:
    """Attribution patching: first-order effects of ablating every component, from one backward pass.

        effect(m) ~ < d objective(e) / d h_m , h_m - h'_m >        summed over all tokens

    Args:
        encoder: the encoder.
        inputs: inputs of the clean pass.
        prefix: the clean pass.
        sites: heads, neurons, `attn_out` or `mlp_out`, or features of an autoencoder.
        objective: maps embeddings (B,E) to one number each; `similarity_with` for the signed effect.
        ablation: replacement of a write; see `ablate`.
        means: mean writes, for `mean`.
        others: pass of other pictures, for `resample`.
        sae: the autoencoder of the features.
    """
    spec, components = encoder.spec, Components(tuple(sites), sae)
    shape = prefix.hidden[0].shape
    # The gradient of a layer's output is that of a zero added to it.
    places = [*layer_sites("attn_out", spec.n_layers), *layer_sites("mlp_out", spec.n_layers)]
    if sae is not None:
        places = list(dict.fromkeys(_gradient_place(components.place(site)) for site in sites))
    added = {
        place: torch.zeros(shape, device=encoder.device, dtype=encoder.dtype, requires_grad=True) for place in places
    }
    with torch.enable_grad():
        additions = [Add(place, vector=zero) for place, zero in added.items()]
        score = objective(encoder.forward(inputs, additions))
        gradients = torch.autograd.grad(score.sum(), list(added.values()))
    by_place = dict(zip(added, gradients, strict=True))
    effects: dict[Site, Tensor] = {}
    for group in components.by_layer():
        own = components.record(encoder, prefix, group)
        put = replacements(encoder, group, ablation, means, others, own, sae)
        for site in group:
            gradient = by_place[_gradient_place(components.place(site))]
            effects[site] = (gradient.float() * (own[site] - put[site]).float()).sum(dim=(1, 2))
    return torch.stack([effects[site] for site in sites], dim=1)


def _gradient_place(place: Site) -> Site:
    """The place whose gradient is that of a write: heads add to their attention's output, neurons to their MLP's."""
    if place.kind == "neuron":
        return Site("mlp_out", place.layer)
    return Site("attn_out", place.layer) if place.kind == "head" else place


def similarity_with(target: Float[Tensor, "B E"]) -> Objective:
    """Objective whose drop is the signed effect: cosine similarity with a target."""
    return lambda embedding: cosine_similarity(embedding, target)
