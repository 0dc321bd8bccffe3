"""Components that studies ablate: heads, neurons, or features of one sparse autoencoder.

The write of a head or neuron is recorded and replaced where the output of its attention or MLP enters the residual
stream. A feature's write is
`activation * multiplier * W_dec[i]`; replacing it encodes the running value, changes the feature, decodes and adds the
error back (`steerlens.saes.feature_interventions`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Encoder, EncoderSpec, NativeEncoder, Prefix, head_values_from, record_from
from steerlens.errors import UsageError
from steerlens.interventions import Intervention, Resample
from steerlens.lenses import Direction, check_sae, into_stream, parts_of
from steerlens.saes import SparseAutoencoder, decoder_rows, feature_interventions, value_at
from steerlens.sites import SAE_KINDS, Site, all_heads
from steerlens.studies.shared.wording import FEATURES, HEADS, NEURONS
from steerlens.trace import Trace


@dataclass(frozen=True, eq=False)
class Components:
    """Components of one kind.

    Attributes:
        sites: heads, attention outputs and MLPs, neurons, or features of the autoencoder.
        sae: the autoencoder of the features; None for parts of the model.
    """

    sites: tuple[Site, ...]
    sae: SparseAutoencoder | None = None

    @property
    def words(self) -> str:
        """The components in a word: `heads`, `features` or `neurons`."""
        if self.sae is not None:
            return FEATURES
        return NEURONS if any(site.kind == "neuron" for site in self.sites) else HEADS

    @property
    def directions(self) -> Mapping[str, Direction]:
        """Contents of named sites, for lenses."""
        return {} if self.sae is None else {self.sae.name: self.sae}

    def place(self, site: Site) -> Site:
        """Returns the place in the forward pass where a component's write is changed.

        Raises:
            UsageError: if it has none.
        """
        if site.kind not in SAE_KINDS or self.sae is None:
            if site.layer < 0:
                raise UsageError(f"{site} belongs to no layer and cannot be ablated.")
            return site
        (change,) = feature_interventions([Resample(site)], [self.sae])
        return Site("resid_pre", 0) if change.site.kind == "embed" else change.site

    def by_layer(self, sites: Sequence[Site] | None = None) -> list[list[Site]]:
        """Groups sites by layer, from the first layer to the last.

        Raises:
            UsageError: if a site belongs to no layer.
        """
        chosen = self.sites if sites is None else sites
        layers = {site: self.place(site).layer for site in chosen}
        return [[site for site in chosen if layers[site] == layer] for layer in sorted(set(layers.values()))]

    def record(self, encoder: NativeEncoder, prefix: Prefix, sites: Sequence[Site]) -> dict[Site, Tensor]:
        """Records the writes (B,T,D) of components of one layer on every token in the clean pass."""
        if self.sae is None:
            return record_from(encoder, prefix, sites)
        place = self.place(sites[0])
        if self.sae.space == "residual":
            x = record_from(encoder, prefix, [place])[place]
            return dict(zip(sites, parts_of(self.sae, x, sites).to(x).unbind(dim=-2), strict=True))
        x = head_values_from(encoder, prefix, place.layer)
        if place.kind == "head":
            x = x.unflatten(-1, (encoder.spec.n_heads, -1))[:, :, place.head]
        parts = into_stream(self.sae, parts_of(self.sae, x, sites).to(x), encoder.projections()[0])
        return dict(zip(sites, parts.unbind(dim=-2), strict=True))

    def replaced(self, site: Site, value: Float[Tensor, "#B T D"]) -> Intervention:
        """Returns the intervention that replaces a component's write."""
        return Resample(site, value=value) if self.sae is None else self.replaced_together({site: value})

    def replaced_together(self, values: Mapping[Site, Float[Tensor, "#B T D"]]) -> Intervention:
        """Returns the intervention that replaces the writes of several features at once.

        Raises:
            UsageError: if the components are no features.
        """
        changes = [Resample(site, value=value) for site, value in values.items()]
        placed = feature_interventions(changes, [] if self.sae is None else [self.sae])
        if self.sae is None or len(placed) != 1:
            raise UsageError("only features of one autoencoder are replaced together, at least one of them.")
        # Passes begin at a block, whose input is the embedding of the tokens.
        return replace(placed[0], site=Site("resid_pre", 0)) if placed[0].site.kind == "embed" else placed[0]


def component_count(spec: EncoderSpec, sae: SparseAutoencoder | None, features: int, neurons: int = 0) -> int:
    """Number of components of a study: so many neurons, so many features, or all heads."""
    if neurons:
        return neurons
    return spec.n_layers * spec.n_heads if sae is None else min(features, sae.n_features)


def component_words(sae: SparseAutoencoder | None, neurons: int = 0) -> str:
    """The components of a study in a word: `heads`, `features` or `neurons`."""
    return NEURONS if neurons else HEADS if sae is None else FEATURES


def component_identity(sae: SparseAutoencoder | None, features: int, neurons: int = 0) -> dict[str, Any]:
    """Entries for features or neurons in a study's identity, as JSON values; empty for heads."""
    if neurons:
        return {"neurons": neurons}
    return {} if sae is None else {"sae": {"name": sae.name, "identity": sae.identity, "features": features}}


def component_setup(sae: SparseAutoencoder | None, neurons: int = 0) -> dict[str, str]:
    """Fields for the components in the setup of a study's summary; empty for heads."""
    if neurons:
        return {"components": NEURONS}
    if sae is None:
        return {}
    words = f"{sae.name}: {sae.n_features} features of {sae.site}, {sae.activation.name}"
    return {"components": FEATURES, "sae": words}


def check_studied(sae: SparseAutoencoder, spec: EncoderSpec) -> None:
    """Checks that features of an autoencoder can be ablated in an encoder.

    Raises:
        UsageError: if it belongs to another model, or reads what the forward pass cannot be changed at.
    """
    check_sae(sae, spec)
    feature_interventions([Resample(sae.feature(0))], [sae])


@torch.no_grad()
def strongest_features(
    sae: SparseAutoencoder, encoder: Encoder, traces: Sequence[Trace], count: int
) -> tuple[Site, ...]:
    """Chooses the features with the largest mean write on the readout tokens of reference pictures.

    Raises:
        UsageError: if fewer than two features are active.
    """
    total = torch.zeros(sae.n_features, device=sae.W_enc.device)
    for trace in traces:
        values = value_at(sae, trace).to(sae.W_enc).flatten(0, 1)
        multiplier = sae.normalisation.affine(values).multiplier
        for rows, activations in sae.encoded_in_parts(values):
            total += (activations * multiplier[rows]).abs().sum(dim=0)
    active = int((total > 0).sum())
    if active < 2:
        raise UsageError(
            f"{active} features of {sae.name} are active on the readout tokens of the reference pictures of "
            f"{encoder.spec.name}, so there is nothing to study. Was it trained on this model, at {sae.site}?"
        )
    writes = total * decoder_rows(sae, traces[0]).norm(dim=-1)
    best = writes.cpu().argsort(descending=True, stable=True)[: min(count, active)]
    return tuple(sae.feature(index) for index in sorted(best.tolist()))


@torch.no_grad()
def strongest_neurons(traces: Sequence[Trace], count: int) -> tuple[Site, ...]:
    """Chooses the neurons of all layers with the largest mean write on the readout tokens of reference pictures.

    Args:
        traces: traces of the pictures, with neurons.
        count: number of neurons.

    Raises:
        UsageError: if there are fewer.
    """
    layers = range(traces[0].n_layers)
    sums = [torch.stack([trace.neurons.norms(layer).float().sum(dim=(0, 1)) for trace in traces]) for layer in layers]
    total = torch.cat([of_layer.sum(dim=0) for of_layer in sums]).cpu()
    if count > len(total):
        raise UsageError(f"--neurons {count}: there are only {len(total)} neurons in this encoder.")
    sites = [Site("neuron", layer, index=unit) for layer in layers for unit in range(sums[layer].shape[1])]
    best = total.argsort(descending=True, stable=True)[:count]
    return tuple(sites[place] for place in sorted(best.tolist()))


def heads_of(spec: EncoderSpec) -> Components:
    """All heads of an encoder."""
    return Components(all_heads(spec.n_layers, spec.n_heads))
