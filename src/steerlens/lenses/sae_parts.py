"""Parts of sparse autoencoders as components: features, bias and error, which sum to the value at a site.

With x the value at the site, f its activations and m what undoes the autoencoder's normalisation of x:

    feature i    f_i m W_dec[i]
    bias         m b_dec + shift
    error        x - x̂                      x = sum of the active features + bias + error

A part enters the residual stream at the site. With everything after it frozen it reaches the final residual unchanged,
so the Steering Lens takes it like a head's write. Parts of an autoencoder of the embedding e enter after the
projection, and are steered there:

    e + c h                                 c = s - 1, or c = rho |e| / |h|

References: T. Bricken et al., "Towards Monosemanticity", 2023; S. Marks et al., "Sparse Feature Circuits",
arXiv 2403.19647 (the error as a component).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.encoders import Encoder, EncoderSpec, Hook, Inputs, NativeEncoder
from steerlens.errors import UsageError
from steerlens.lenses.components import Direction
from steerlens.saes import SparseAutoencoder, value_at
from steerlens.sites import SAE_KINDS, Site
from steerlens.trace import Trace


def sae_of(site: Site, directions: Mapping[str, Direction]) -> SparseAutoencoder:
    """Returns the autoencoder of a feature, an error or a bias.

    Raises:
        UsageError: if there is no autoencoder of that name, or it has no such feature.
    """
    sae = directions.get(site.name)
    if not isinstance(sae, SparseAutoencoder):
        known = ", ".join(name for name, named in directions.items() if isinstance(named, SparseAutoencoder))
        raise UsageError(
            f"{site}: no sparse autoencoder is called {site.name!r}; "
            + (f"known: {known}." if known else "none was given (--sae FOLDER).")
        )
    if site.kind == "feature":
        sae.check_site(site)
    return sae


def by_sae(sites: Sequence[Site], directions: Mapping[str, Direction]) -> dict[str, list[Site]]:
    """Groups the parts of autoencoders among sites by the name of their autoencoder.

    Raises:
        UsageError: as `sae_of`.
    """
    grouped: dict[str, list[Site]] = {}
    for site in dict.fromkeys(sites):
        if site.kind in SAE_KINDS:
            sae_of(site, directions)
            grouped.setdefault(site.name, []).append(site)
    return grouped


def of_embedding(sites: Sequence[Site], directions: Mapping[str, Direction]) -> tuple[Site, ...]:
    """Returns those of the sites that are parts of the image embedding, not of the residual stream.

    Raises:
        UsageError: as `sae_of`.
    """
    return tuple(site for site in sites if site.kind in SAE_KINDS and sae_of(site, directions).reads_embedding)


@torch.no_grad()
def parts_of(sae: SparseAutoencoder, x: Float[Tensor, "*T d"], sites: Sequence[Site]) -> Float[Tensor, "*T N d"]:
    """Computes parts of values at an autoencoder's site, in the space of the values.

    Args:
        sae: the autoencoder.
        x: the values.
        sites: features of it, its error or its bias.
    """
    x = x.to(sae.W_enc)
    activations = sae.encode(x)
    shift, _, multiplier = sae.normalisation.affine(x)
    rows: list[Tensor] = []
    for site in sites:
        if site.kind == "feature":
            rows.append(activations[..., site.index, None] * multiplier * sae.W_dec[site.index])
        elif site.kind == "bias":
            rows.append((multiplier * sae.b_dec + shift).expand_as(x))
        else:
            rows.append(x - sae.decode(activations, x))
    return torch.stack(rows, dim=-2)


@torch.no_grad()
def sae_writes(trace: Trace, sites: Sequence[Site], directions: Mapping[str, Direction]) -> dict[Site, Tensor]:
    """Computes the writes (B,R,D) of parts of autoencoders into the final residual of the readout tokens.

    Raises:
        UsageError: if there is no such autoencoder or feature, or it belongs to another model or to the embedding.
    """
    writes: dict[Site, Tensor] = {}
    for name, own in by_sae(sites, directions).items():
        sae = sae_of(own[0], directions)
        if sae.reads_embedding:
            raise UsageError(
                f"{own[0]} is a part of the image embedding, which the residual stream does not hold: name it alone, "
                f"not among members, and keep {name} to decoders of embeddings."
            )
        parts = into_stream(sae, parts_of(sae, value_at(sae, trace), own), trace.out_weights)
        writes |= dict(zip(own, parts.unbind(dim=-2), strict=True))
    return writes


@torch.no_grad()
def embedding_parts(trace: Trace, sites: Sequence[Site], directions: Mapping[str, Direction]) -> Float[Tensor, "B N E"]:
    """Computes parts of the image embedding.

    Raises:
        UsageError: if there is no such autoencoder or feature, or it belongs to another model.
    """
    parts: dict[Site, Tensor] = {}
    for own in by_sae(sites, directions).values():
        sae = sae_of(own[0], directions)
        parts |= dict(zip(own, parts_of(sae, value_at(sae, trace)[:, 0], own).unbind(dim=-2), strict=True))
    return torch.stack([parts[site] for site in sites], dim=1)


def into_stream(
    sae: SparseAutoencoder, parts: Float[Tensor, "*T d"], out_weights: Sequence[Float[Tensor, "H d D"]]
) -> Float[Tensor, "*T D"]:
    """Maps parts of what an autoencoder reads to writes into the residual stream.

    Head values go through their heads' slices of the output projection; other values are writes already.
    """
    if sae.space == "residual" or not isinstance(sae.site, Site):
        return parts
    weights = out_weights[sae.site.layer]
    projection = weights[sae.site.head] if sae.site.kind == "head" else weights.flatten(0, 1)
    return parts @ projection.to(parts)


def values_on_tokens(encoder: Encoder, inputs: Inputs | Tensor, sae: SparseAutoencoder) -> Float[Tensor, "B T d"]:
    """Records what an autoencoder reads on every token, in one forward pass, in at least float32.

    Raises:
        UsageError: if it reads the embedding, which no token holds, or the model has no such site or another width.
    """
    site = sae.site
    if not isinstance(site, Site):
        raise UsageError(f"{sae.name} reads the image embedding, which no single token holds.")
    site.check(encoder.spec.n_layers, encoder.spec.n_heads)
    residual = sae.space == "residual"
    value = encoder.record(inputs, [site])[site] if residual else _head_values(encoder, inputs, site)
    if value.shape[-1] != sae.width:
        raise UsageError(
            f"sparse autoencoder {sae.name} has width {sae.width}, and the model's values at {site} have width "
            f"{value.shape[-1]}: it was trained on another model or at another site."
        )
    return value.to(torch.promote_types(value.dtype, torch.float32))


@torch.no_grad()
def activations_on_tokens(
    encoder: Encoder, inputs: Inputs | Tensor, sae: SparseAutoencoder, sites: Sequence[Site]
) -> Float[Tensor, "B N T"]:
    """Computes where parts are active: activations of features on every token, norms of an error or a bias.

    Raises:
        UsageError: as `values_on_tokens`.
    """
    x = values_on_tokens(encoder, inputs, sae).to(sae.W_enc)
    indices = [site.index for site in sites if site.kind == "feature"]
    chosen = torch.stack([_activations(sae, row, indices) for row in x])
    active = dict(zip(indices, chosen.unbind(dim=-1), strict=True))
    others = [site for site in sites if site.kind != "feature"]
    norms = dict(zip(others, parts_of(sae, x, others).norm(dim=-1).unbind(dim=-1), strict=True)) if others else {}
    return torch.stack([active[site.index] if site.kind == "feature" else norms[site] for site in sites], dim=1)


@torch.no_grad()
def writes_on_tokens(
    encoder: Encoder, inputs: Inputs | Tensor, sae: SparseAutoencoder, sites: Sequence[Site]
) -> Float[Tensor, "B N T D"]:
    """Computes the writes of parts on every token.

    Raises:
        UsageError: as `values_on_tokens`.
    """
    parts = parts_of(sae, values_on_tokens(encoder, inputs, sae), sites).transpose(1, 2)
    if sae.space == "residual":
        return parts
    return into_stream(sae, parts, _native(encoder, sae).projections()[0])


def trained_tokens(sae: SparseAutoencoder, spec: EncoderSpec) -> list[int]:
    """Lists the tokens that an autoencoder was trained on: the readout tokens, the patches, or all if not known."""
    if sae.trained_on == "cls":
        return list(range(spec.n_tokens) if spec.readout_tokens is None else spec.readout_tokens)
    return list(range(spec.first_patch if sae.trained_on == "patch" else 0, spec.n_tokens))


def check_sae(sae: SparseAutoencoder, spec: EncoderSpec) -> None:
    """Checks that an encoder has what an autoencoder reads.

    Raises:
        UsageError: if it has no such site, or values of another width there.
    """
    check_sae_site(sae, spec.n_layers, spec.n_heads)
    site = sae.site
    width, what = spec.width, "residual stream"
    if not isinstance(site, Site):
        width, what = spec.embedding_size, "image embedding"
    elif sae.space == "head_values":
        # Heads of most encoders share the width of the residual stream; others are told when they are traced.
        return
    if sae.width != width:
        raise UsageError(
            f"sparse autoencoder {sae.name} has width {sae.width}, and the {what} of {spec.name} has width {width}: it "
            "was trained on another model, or at another site."
        )


def check_sae_site(sae: SparseAutoencoder, n_layers: int, n_heads: int) -> None:
    """Checks that an encoder of these sizes has the site that an autoencoder reads.

    Raises:
        UsageError: if it has not.
    """
    if isinstance(sae.site, Site):
        try:
            sae.site.check(n_layers, n_heads)
        except UsageError as error:
            raise UsageError(f"sparse autoencoder {sae.name} reads {error}") from None


def place_of(sae: SparseAutoencoder, site: Site) -> Site:
    """Returns the place in the real forward pass where parts of an autoencoder enter the residual stream.

    Raises:
        UsageError: if the autoencoder reads the embedding, after which nothing comes.
    """
    if not isinstance(sae.site, Site):
        raise UsageError(
            f"{site} is a part of the image embedding, after which nothing reacts: its direct effect is its whole "
            "effect; leave out effect total."
        )
    if sae.site.kind == "head":
        return Site("attn_out", sae.site.layer)
    return Site("resid_pre", 0) if sae.site.kind == "embed" else sae.site


def _activations(sae: SparseAutoencoder, x: Float[Tensor, "T d"], indices: Sequence[int]) -> Float[Tensor, "T N"]:
    """Activations of some features, a bounded number of tokens at a time."""
    chosen = torch.tensor(list(indices), device=x.device, dtype=torch.long)
    rows = torch.empty(len(x), len(indices), device=x.device, dtype=x.dtype)
    for place, activations in sae.encoded_in_parts(x):
        rows[place] = activations[:, chosen]
    return rows


def _head_values(encoder: Encoder, inputs: Inputs | Tensor, site: Site) -> Float[Tensor, "B T d"]:
    """Records head values, of one head or of all concatenated, on every token."""
    native, kept = _native(encoder, site), list[Tensor]()
    modules = native.layers()[site.layer]

    def keep(args: tuple[Any, ...], _: dict[str, Any]) -> None:
        kept.append(modules.head_values(args).detach())

    act: Callable[..., None] = keep
    with torch.no_grad():
        native.run(native.model_inputs(inputs), [Hook(modules.attn_proj, "before", act, f"records {site}")])
    (values,) = kept
    if site.kind != "head":
        return values
    width = values.shape[-1] // modules.n_heads
    return values[..., site.head * width : (site.head + 1) * width]


def _native(encoder: Encoder, what: object) -> NativeEncoder:
    if not isinstance(encoder, NativeEncoder):
        raise UsageError(f"{encoder.spec.name} does not show its head values, which {what} reads.")
    return encoder
