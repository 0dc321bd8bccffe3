"""Interventions at features: encode, change, decode, add the error back.

    x' = x + Σ_i (f'_i - f_i) m(x) W_dec[i]

which is decoding with the changed activations f' and adding the error of the unchanged value. So an intervention that
changes nothing leaves the value as it is, however poor the autoencoder.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.interventions import Intervention
from steerlens.saes.sae import SparseAutoencoder
from steerlens.sites import Site


@dataclass(frozen=True, eq=False, repr=False)
class ChangeFeatures(Intervention):
    """Changes features of a sparse autoencoder at its site.

    Attributes:
        sae: the autoencoder, whose site is this intervention's.
        changes: interventions at its features. Each acts on the feature's activations, (B,T,1), or on its write,
            (B,T,D), if its own tensor is that wide. Those at one feature act one after another.
    """

    sae: SparseAutoencoder | None = None
    changes: tuple[Intervention, ...] = ()

    def new_value(self, value: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Returns the value with its features changed.

        Raises:
            UsageError: if an intervention does not fit the activations, or there is no autoencoder.
        """
        if self.sae is None:
            raise UsageError(f"ChangeFeatures at {self.site} was given no sparse autoencoder.")
        return change_features(self.sae, value, self.changes)


def change_features(
    sae: SparseAutoencoder, x: Float[Tensor, "B T D"], changes: Sequence[Intervention]
) -> Float[Tensor, "B T D"]:
    """Changes features of values: encodes, changes, decodes and adds the error back.

    Args:
        sae: the autoencoder.
        x: values at its site; image embeddings as (B,1,E).
        changes: interventions at its features.

    Raises:
        UsageError: if a site is no feature of it, or an intervention does not fit the activations.
    """
    indices = list(dict.fromkeys(sae.check_site(change.site).index for change in changes))
    if not indices:
        return x
    exact = x.to(torch.promote_types(x.dtype, sae.W_dec.dtype))
    rows = sae.W_dec[torch.tensor(indices, device=sae.W_dec.device)].to(exact)
    multiplier = sae.normalisation.affine(exact).multiplier
    before = sae.encode(exact, torch.tensor(indices)).to(exact)
    added = torch.zeros_like(exact)
    for place, index in enumerate(indices):
        activation = before[..., place : place + 1]
        for change in (change for change in changes if change.site.index == index):
            if _is_write(change, sae.width):
                write = activation * multiplier * rows[place]
                added = added + change.apply(write) - write
            else:
                changed = change.apply(activation)
                added = added + (changed - activation) * multiplier * rows[place]
                activation = changed
    return (exact + added).to(x.dtype)


def feature_interventions(
    interventions: Iterable[Intervention], saes: Mapping[str, SparseAutoencoder] | Sequence[SparseAutoencoder]
) -> list[Intervention]:
    """Turns interventions at features into interventions at places of the model; others stay.

    All features of one autoencoder change together, at the place of the first of them.

    Args:
        interventions: interventions, some at sites `feature.NAME.I`.
        saes: autoencoders, by name or not.

    Raises:
        UsageError: if an autoencoder is not among them, has no such feature, or reads no place of the forward pass.
    """
    named = saes if isinstance(saes, Mapping) else {sae.name: sae for sae in saes}
    resolved: list[Intervention | str] = []
    changes: dict[str, list[Intervention]] = {}
    for intervention in interventions:
        site = intervention.site
        if site.kind != "feature":
            resolved.append(intervention)
            continue
        if site.name not in named:
            raise UsageError(
                f"no sparse autoencoder is called {site.name!r}; known: {', '.join(sorted(named)) or 'none'}."
            )
        named[site.name].check_site(site)
        if site.name not in changes:
            resolved.append(site.name)
        changes.setdefault(site.name, []).append(intervention)
    return [
        ChangeFeatures(_place(named[entry]), sae=named[entry], changes=tuple(changes[entry]))
        if isinstance(entry, str)
        else entry
        for entry in resolved
    ]


def _place(sae: SparseAutoencoder) -> Site:
    if not isinstance(sae.site, Site):
        raise UsageError(
            f"{sae.name} reads the image embedding, which comes after the forward pass: change its features by "
            "change_features on the embedding."
        )
    if sae.space == "head_values":
        raise UsageError(
            f"{sae.name} reads head values before their output projection, which interventions do not see: they act on "
            f"what the heads write. Its features can be read, not changed in the forward pass."
        )
    return sae.site


def _is_write(change: Intervention, width: int) -> bool:
    """True if the tensor of an intervention has the width of a write."""
    inner = getattr(change, "inner", None)
    if isinstance(inner, Intervention):
        return _is_write(inner, width)
    tensors = (getattr(change, name, None) for name in ("value", "vector"))
    return width > 1 and any(isinstance(tensor, Tensor) and tensor.shape[-1:] == (width,) for tensor in tensors)
