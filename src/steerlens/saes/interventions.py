"""Interventions at features: encode, change, decode, add the error back.

    x' = x + Σ_i (f'_i - f_i) m(x) W_dec[i]

which is decoding with the changed activations f' and adding the error of the unchanged value. So an intervention that
changes nothing leaves the value as it is, however poor the autoencoder. The error and the bias can be changed like
features.

An autoencoder of head values z is changed there, before the output projection: z' as above, and the attention output
changes by (z' - z) W_O.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import UsageError
from steerlens.interventions import Intervention
from steerlens.saes.sae import SparseAutoencoder
from steerlens.sites import SAE_KINDS, Site


@dataclass(frozen=True, eq=False, repr=False)
class ChangeFeatures(Intervention):
    """Changes features of a sparse autoencoder at its site.

    Attributes:
        sae: the autoencoder, whose site is this intervention's.
        changes: interventions at its features, its error or its bias. At a feature, each acts on the activations,
            (B,T,1), or on the write, (B,T,D), if its own tensor is that wide; those at one feature act one after
            another. At the error and the bias, it acts on the write.
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

    @property
    def reads_head_values(self) -> bool:
        """True if the autoencoder reads head values."""
        return self.sae is not None and self.sae.space == "head_values"

    def through_heads(
        self, values: Float[Tensor, "B T d"], weights: Float[Tensor, "d D"]
    ) -> tuple[Float[Tensor, "B T d"], Float[Tensor, "B T D"]]:
        """Changes features of head values; a change that is given as a write is added after the output projection.

        Raises:
            UsageError: as `new_value`.
        """
        if self.sae is None:
            raise UsageError(f"ChangeFeatures at {self.site} was given no sparse autoencoder.")
        changed, added = _changed(self.sae, values, self.changes, weights)
        added = added.to(values)
        if self.tokens is None:
            return changed, added
        chosen, kept, behind = list(self.tokens), values.clone(), torch.zeros_like(added)
        kept[:, chosen], behind[:, chosen] = changed[:, chosen], added[:, chosen]
        return kept, behind


def change_features(
    sae: SparseAutoencoder, x: Float[Tensor, "B T D"], changes: Sequence[Intervention]
) -> Float[Tensor, "B T D"]:
    """Changes features of values: encodes, changes, decodes and adds the error back.

    Args:
        sae: the autoencoder.
        x: values at its site; image embeddings as (B,1,E).
        changes: interventions at its features, its error or its bias.

    Raises:
        UsageError: if a site is no part of it, or an intervention does not fit the activations.
    """
    return _changed(sae, x, changes, None)[0]


def _changed(
    sae: SparseAutoencoder, x: Float[Tensor, "B T d"], changes: Sequence[Intervention], out: Float[Tensor, "d D"] | None
) -> tuple[Float[Tensor, "B T d"], Float[Tensor, "B T D"]]:
    """Changes parts of values; returns the new values, and what changes given as writes add behind a projection.

    Without a projection, writes are those in the space of the values, and nothing is added behind.
    """
    parts = dict.fromkeys(_part(sae, change.site) for change in changes)
    exact = x.to(torch.promote_types(x.dtype, sae.W_dec.dtype))
    weights = None if out is None else out.to(exact)
    added, behind = torch.zeros_like(exact), exact.new_zeros(*x.shape[:-1], sae.width if out is None else out.shape[1])
    shift, _, multiplier = sae.normalisation.affine(exact)
    indices = [site.index for site in parts if site.kind == "feature"]
    activations = dict[int, Tensor]()
    if indices:
        before = sae.encode(exact, torch.tensor(indices)).to(exact)
        activations = dict(zip(indices, before.split(1, dim=-1), strict=True))
    for change in changes:
        site = change.site
        row, unit = None, exact.new_ones(1)
        if site.kind == "feature":
            row, unit = sae.W_dec[site.index].to(exact), activations[site.index]
            write = unit * multiplier * row
        elif site.kind == "bias":
            write = multiplier * sae.b_dec.to(exact) + shift
        else:
            write = exact - sae.decode(sae.encode(exact), exact).to(exact)
        if weights is not None and _is_write(change, weights.shape[1]):
            written = write.expand_as(exact) @ weights
            behind = behind + change.apply(written) - written
        elif row is None or (weights is None and _is_write(change, sae.width)):
            write = write.expand_as(exact)
            added = added + change.apply(write) - write
        else:
            changed = change.apply(unit)
            added = added + (changed - unit) * multiplier * row
            activations[site.index] = changed
    return (exact + added).to(x.dtype), behind


def _part(sae: SparseAutoencoder, site: Site) -> Site:
    """Returns the site of a feature, error or bias if the autoencoder has it."""
    if site.kind == "feature" or site.kind not in SAE_KINDS or site.name != sae.name:
        return sae.check_site(site)
    return site


def feature_interventions(
    interventions: Iterable[Intervention], saes: Mapping[str, SparseAutoencoder] | Sequence[SparseAutoencoder]
) -> list[Intervention]:
    """Turns interventions at features into interventions at places of the model; others stay.

    All parts of one autoencoder change together, at the place of the first of them.

    Args:
        interventions: interventions, some at sites `feature.NAME.I`, `error.NAME` or `bias.NAME`.
        saes: autoencoders, by name or not.

    Raises:
        UsageError: if an autoencoder is not among them, has no such feature, or reads no place of the forward pass.
    """
    named = saes if isinstance(saes, Mapping) else {sae.name: sae for sae in saes}
    resolved: list[Intervention | str] = []
    changes: dict[str, list[Intervention]] = {}
    for intervention in interventions:
        site = intervention.site
        if site.kind not in SAE_KINDS:
            resolved.append(intervention)
            continue
        if site.name not in named:
            raise UsageError(
                f"no sparse autoencoder is called {site.name!r}; known: {', '.join(sorted(named)) or 'none'}."
            )
        _part(named[site.name], site)
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
    return sae.site


def _is_write(change: Intervention, width: int) -> bool:
    """True if the tensor of an intervention has the width of a write."""
    inner = getattr(change, "inner", None)
    if isinstance(inner, Intervention):
        return _is_write(inner, width)
    tensors = (getattr(change, name, None) for name in ("value", "vector"))
    return width > 1 and any(isinstance(tensor, Tensor) and tensor.shape[-1:] == (width,) for tensor in tensors)
