"""Effects of features on their top picture: real ablation, and the heads whose writes activate them.

ablation    the feature's part is taken out of the value in a real forward pass, on every token that the autoencoder was
            trained on; error and other features stay: x -> x - f_i m W_dec[i]; its control takes out a random direction
            of the same size on the same tokens
heads       at the token where the feature is strongest, what each earlier head adds to its pre-activation:
            <h, w> / σ, with w = W_enc[:, i] and σ the divisor of the autoencoder's normalisation there, frozen; a
            normalisation by layer also takes the mean of w out. By weights alone, |W_O w|: the most that head values of
            norm 1 add where σ is 1
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.encoders import Hook, Inputs, NativeEncoder, record_prefix, resume
from steerlens.errors import UsageError
from steerlens.interventions import Add
from steerlens.lenses import into_stream, trained_tokens
from steerlens.saes import SparseAutoencoder
from steerlens.scores import cosine_similarity
from steerlens.sites import Site

N_HEADS = 5
"""Heads named for each feature."""

_ROWS = 64
"""Features that are measured at once, each on a picture: what is held does not grow with the features of a batch."""


@dataclass(frozen=True)
class FeatureReader:
    """A sparse autoencoder on an encoder: its values, tokens and the heads before it.

    Attributes:
        encoder: the encoder.
        sae: the autoencoder.
    """

    encoder: NativeEncoder
    sae: SparseAutoencoder

    @property
    def tokens(self) -> list[int]:
        """Tokens whose activations count: those that the autoencoder was trained on; one for the image embedding."""
        return [0] if self.sae.reads_embedding else trained_tokens(self.sae, self.encoder.spec)

    @property
    def head_layers(self) -> range:
        """Layers whose heads write into what the autoencoder reads; empty where they reach it through an MLP."""
        return layers_of_heads(self.sae)

    @torch.no_grad()
    def values(self, inputs: Inputs) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B R W"]]:
        """Values on the tokens that count, and the final residual of the readout tokens."""
        last = Site("resid_post", self.encoder.spec.n_layers - 1)
        readout = list(self.encoder.readout_tokens)
        if not isinstance(self.sae.site, Site):
            final = self.encoder.record(inputs, [last])[last][:, readout].float()
            return self.encoder.readout(final.to(self.encoder.dtype)).float()[:, None], final
        recorded = self.encoder.record(inputs, list(dict.fromkeys([self._recorded, last])))
        value = recorded[self._recorded]
        if self.sae.space != "residual":
            value = self.head_values(inputs, range(self.sae.site.layer, self.sae.site.layer + 1))[0]
            value = value[:, :, self.sae.site.head] if self.sae.site.kind == "head" else value.flatten(2)
        return value[:, self.tokens].float(), recorded[last][:, readout].float()

    @property
    def _recorded(self) -> Site:
        site = self.sae.site
        if not isinstance(site, Site):
            raise TypeError("the image embedding is no site")
        return site

    def head_values(self, inputs: Inputs, layers: Sequence[int]) -> list[Float[Tensor, "B T H d"]]:
        """Head values of some layers on every token, from one forward pass."""
        kept: dict[int, Tensor] = {}
        modules, H = self.encoder.layers(), self.encoder.spec.n_heads

        def keep(layer: int) -> Any:
            def act(args: tuple[Any, ...], _: dict[str, Any]) -> None:
                kept[layer] = modules[layer].head_values(args).unflatten(-1, (H, -1))

            return act

        hooks = [Hook(modules[layer].attn_proj, "before", keep(layer), f"records heads of {layer}") for layer in layers]
        with torch.no_grad():
            self.encoder.run(self.encoder.model_inputs(inputs), hooks)
        return [kept[layer] for layer in layers]

    def rows(self, features: Int[Tensor, "N"]) -> Float[Tensor, "N D"]:
        """Decoder rows as they enter the residual stream, or the embedding."""
        return into_stream(self.sae, self.sae.W_dec[features], self.encoder.projections()[0])

    def head_weights(self, features: Int[Tensor, "N"]) -> Float[Tensor, "N L H d"]:
        """W_O W_enc[:, i] of the heads before the autoencoder: what head values add to pre-activations, σ being 1."""
        weights = [self.encoder.projections()[0][layer] for layer in self.head_layers]
        if not weights:
            return torch.zeros(len(features), 0, self.encoder.spec.n_heads, 1)
        encoder = self.sae.W_enc[:, features]
        if self.sae.normalisation.kind == "layer_norm":
            encoder = encoder - encoder.mean(dim=0)
        return torch.stack([torch.einsum("hdw,wn->nhd", weight.to(encoder), encoder) for weight in weights], dim=1)


@torch.no_grad()
def ablation_effects(
    reader: FeatureReader,
    inputs: Inputs,
    features: Int[Tensor, "N"],
    pictures: Int[Tensor, "N"],
    activations: Float[Tensor, "B T F"],
    multiplier: Float[Tensor, "B T 1"],
    *,
    control: bool = False,
) -> Float[Tensor, "N"]:
    """Movement of the embedding, `1 - cos`, when each feature is ablated on one picture.

    Args:
        reader: the autoencoder on its encoder.
        inputs: the batch of pictures.
        features: the features.
        pictures: the picture of the batch for each.
        activations: activations of the batch on the tokens that count.
        multiplier: undoes the normalisation of each token.
        control: True to take out a random direction in place of each feature's, as long on every token. It depends on
            the number of the feature alone.
    """
    encoder, site = reader.encoder, reader.sae.site
    groups, moved = torch.arange(len(features)).split(_ROWS), list[Tensor]()

    def write(rows: Int[Tensor, " G"]) -> Float[Tensor, "G T D"]:
        # Gathered before they are multiplied: activations of all features are the largest tensor here.
        strength = activations[pictures[rows], :, features[rows]] * multiplier[pictures[rows], :, 0]
        directions = reader.rows(features[rows])
        directions = _random_like(directions, features[rows].tolist()) if control else directions
        return (strength[..., None] * directions[:, None]).float()

    if not isinstance(site, Site):
        clean = reader.values(inputs)[0][:, 0]
        for rows in groups:
            of_rows = clean[pictures[rows]]
            moved.append((1 - cosine_similarity(of_rows, of_rows - write(rows)[:, 0])).cpu())
        return torch.cat(moved) if moved else torch.zeros(0)
    prefix = record_prefix(encoder, inputs)
    clean = prefix.embedding.float()
    place, first = ablation_place(reader.sae, encoder.spec.n_layers)
    for rows in groups:
        vector = torch.zeros(len(rows), encoder.spec.n_tokens, encoder.spec.width)
        vector[:, reader.tokens] = -write(rows).cpu()
        of_rows = pictures[rows].tolist()
        ablated = resume(encoder, prefix, first, of_rows, [Add(place, vector=vector.to(encoder.device))])
        moved.append((1 - cosine_similarity(clean[of_rows], ablated.float())).cpu())
    return torch.cat(moved) if moved else torch.zeros(0)


def _random_like(directions: Float[Tensor, "N D"], seeds: Sequence[int]) -> Float[Tensor, "N D"]:
    """Random directions, one a seed, each as long as the given one."""
    drawn = [torch.randn(directions.shape[1], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    random = torch.stack(drawn).to(directions)
    return random * (directions.norm(dim=-1, keepdim=True) / random.norm(dim=-1, keepdim=True))


def layers_of_heads(sae: SparseAutoencoder) -> range:
    """Layers whose heads write into what an autoencoder reads; empty where they reach it through an MLP."""
    site = sae.site
    if not isinstance(site, Site) or sae.space != "residual":
        return range(0)
    if site.kind == "attn_out":
        return range(site.layer, site.layer + 1)
    if site.kind in ("resid_pre", "resid_mid", "resid_post"):
        return range(site.layer + (site.kind != "resid_pre"))
    return range(0)


def ablation_place(sae: SparseAutoencoder, n_layers: int) -> tuple[Site, int]:
    """Where a feature is taken out, and the first layer to run: the next one, if that is the same point.

    Raises:
        UsageError: if the autoencoder reads the image embedding.
    """
    site = sae.site
    if not isinstance(site, Site):
        raise UsageError(f"{sae.name} reads the image embedding, after which no layer runs.")
    if sae.space != "residual":
        return Site("attn_out", site.layer), site.layer
    if site.kind == "embed":
        return Site("resid_pre", 0), 0
    if site.kind == "resid_post" and site.layer + 1 < n_layers:
        return Site("resid_pre", site.layer + 1), site.layer + 1
    return site, max(site.layer, 0)


@torch.no_grad()
def measured_heads(
    reader: FeatureReader,
    inputs: Inputs,
    features: Int[Tensor, "N"],
    pictures: Int[Tensor, "N"],
    tokens: Int[Tensor, "N"],
    divisors: Float[Tensor, "N"],
) -> Float[Tensor, "N L H"]:
    """Computes what each earlier head adds to the pre-activation of each feature, on one token of one picture.

    Args:
        reader: the autoencoder on its encoder.
        inputs: the batch of pictures.
        features: the features.
        pictures: the picture of the batch for each.
        tokens: the token of the picture for each.
        divisors: divisor of the autoencoder's normalisation on each of these tokens.
    """
    layers = reader.head_layers
    if not len(layers):
        return torch.zeros(len(features), 0, reader.encoder.spec.n_heads)
    values, parts = reader.head_values(inputs, layers), list[Tensor]()
    for rows in torch.arange(len(features)).split(_ROWS):
        own = torch.stack([of_layer[pictures[rows], tokens[rows]] for of_layer in values], dim=1)
        added = (own * reader.head_weights(features[rows]).to(own)).sum(dim=-1).float()
        parts.append((added / divisors[rows, None, None].to(added)).cpu())
    return torch.cat(parts)


def best_heads(scores: Float[Tensor, "N L H"], first_layer: int) -> Iterator[list[tuple[str, float]]]:
    """Yields the heads of each feature with the largest scores, by name."""
    N, L, H = scores.shape
    if not L:
        yield from ([] for _ in range(N))
        return
    best = scores.flatten(1).topk(min(N_HEADS, L * H), dim=1)
    for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        heads = (
            (f"L{first_layer + index // H}H{index % H}", value) for index, value in zip(indices, values, strict=True)
        )
        yield list(heads)
