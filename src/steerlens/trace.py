"""The trace: the exact additive decomposition of the final residual of an encoder's readout tokens.

    embed + Σ_l Σ_h head[l,h] + Σ_l attn_bias[l] + Σ_l mlp_out[l] = resid_post[L-1]

A head's write is the input of the attention output projection times that head's slice of its weight (so it includes
`W_O b_V`). The trace keeps head values, L x H x D/H numbers per token, and multiplies them out only on request.

References: N. Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021;
Y. Gandelsman et al., "Interpreting CLIP's Image Representation via Text-Based Decomposition", arXiv 2310.05916.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.errors import TraceError, UsageError
from steerlens.neurons import Neurons
from steerlens.printable import counted
from steerlens.sites import Site, SiteLike, SitesLike, as_site, as_sites


@dataclass(frozen=True, eq=False)
class Trace:
    """Writes of every part of a Vision Transformer into the readout tokens, for a batch of pictures.

    R is the number of readout tokens (1 for a CLS readout); d = D/H is the width of one head.

    Attributes:
        embed: the residual that enters the first layer, after any norm before it.
        head_values: input of each layer's attention output projection, head by head.
        attn_out: output of each layer's attention, as added to the residual: its heads and its bias.
        mlp_out: output of each layer's MLP, as added to the residual.
        resid_post: the residual after each layer.
        out_weights: for each layer, each head's slice of the output projection, LayerScale included.
        attn_bias: for each layer, the bias of the output projection, LayerScale included.
        embedding: the image embedding of the native forward pass.
        recorded_attention: attention patterns, see `attention`; None unless requested.
        recorded_values: value vectors, see `values`; None unless requested.
        value_scale: if the model normalises its heads before their output projection, and attention was
            requested: the head values are `value_scale * (attention @ values) + value_shift`; else None.
        value_shift: see `value_scale`.
        recorded_neurons: activations of the MLPs' neurons, see `neurons`; None unless requested.
    """

    embed: Float[Tensor, "B R D"]
    head_values: Float[Tensor, "B L H R d"]
    attn_out: Float[Tensor, "B L R D"]
    mlp_out: Float[Tensor, "B L R D"]
    resid_post: Float[Tensor, "B L R D"]
    out_weights: tuple[Float[Tensor, "H d D"], ...]
    attn_bias: Float[Tensor, "L D"]
    embedding: Float[Tensor, "B E"]
    recorded_attention: Float[Tensor, "B L H R T"] | None = None
    recorded_values: Float[Tensor, "B L H T d"] | None = None
    value_scale: Float[Tensor, "B L H R d"] | None = None
    value_shift: Float[Tensor, "B L H R d"] | None = None
    recorded_neurons: Neurons | None = None

    def __repr__(self) -> str:
        B, L, H, R, _ = self.head_values.shape
        pictures, tokens = counted(B, "picture"), counted(R, "readout token")
        return f"Trace({pictures}, {L} layers x {H} heads, {tokens}, width {self.embed.shape[-1]})"

    def __len__(self) -> int:
        return self.embed.shape[0]

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return self.head_values.shape[1]

    @property
    def n_heads(self) -> int:
        """Number of heads per layer."""
        return self.head_values.shape[2]

    @property
    def attention(self) -> Float[Tensor, "B L H R T"]:
        """Attention patterns of the readout tokens; rows sum to 1.

        Raises:
            UsageError: if the trace was taken without attention.
        """
        return _recorded(self.recorded_attention)

    @property
    def values(self) -> Float[Tensor, "B L H T d"]:
        """Value vectors of every token.

        Raises:
            UsageError: if the trace was taken without attention.
        """
        return _recorded(self.recorded_values)

    @property
    def neurons(self) -> Neurons:
        """Activations of the MLPs' neurons on the readout tokens, and their output projections.

        Raises:
            UsageError: if the trace was taken without neurons.
        """
        if self.recorded_neurons is None:
            raise UsageError("this trace holds no neurons; take it with encoder.trace(inputs, neurons=True).")
        return self.recorded_neurons

    @property
    def has_attention(self) -> bool:
        """True if the trace was taken with attention."""
        return self.recorded_attention is not None and self.recorded_values is not None

    @property
    def final(self) -> Float[Tensor, "B R D"]:
        """The residual that the final norm reads."""
        return self.resid_post[:, -1]

    @property
    def nbytes(self) -> int:
        """Bytes of the captured activations; weights are views of the model's and are not counted."""
        captured = (self.embed, self.head_values, self.attn_out, self.mlp_out, self.resid_post, self.embedding)
        on_request = (self.recorded_attention, self.recorded_values, self.value_scale, self.value_shift)
        neurons = 0 if self.recorded_neurons is None else self.recorded_neurons.nbytes
        return sum(tensor.nbytes for tensor in (*captured, *on_request) if tensor is not None) + neurons

    def at(self, site: SiteLike) -> Float[Tensor, "B R D"]:
        """Returns the value at a site: the residual stream at that point, or a component's write into it.

        Raises:
            UsageError: if the model has no such site, or the site is a direction, group, region or feature, or a neuron
                of a trace that was taken without.
        """
        site = as_site(site).check(self.n_layers, self.n_heads)
        if site.kind == "embed" or (site.kind == "resid_pre" and site.layer == 0):
            return self.embed
        if site.kind == "resid_pre":
            return self.resid_post[:, site.layer - 1]
        if site.kind == "resid_mid":
            return self.at(Site("resid_pre", site.layer)) + self.attn_out[:, site.layer]
        if site.kind == "resid_post":
            return self.resid_post[:, site.layer]
        if site.kind == "attn_out":
            return self.attn_out[:, site.layer]
        if site.kind == "mlp_out":
            return self.mlp_out[:, site.layer]
        if site.kind == "head":
            return self.head_values[:, site.layer, site.head] @ self.out_weights[site.layer][site.head]
        if site.kind == "neuron":
            return self.neurons.write(site)
        what = "direction" if site.kind == "vector" else site.kind
        raise UsageError(f"{site} is a {what}, which a trace does not hold.")

    def stack(self, sites: SitesLike) -> Float[Tensor, "B N R D"]:
        """Stacks the values at several sites, in their order; all heads of a layer are multiplied out at once.

        Raises:
            UsageError: if there is no site, or the model has none of that name.
        """
        sites = as_sites(sites, self.n_layers, self.n_heads)
        if not sites:
            raise UsageError("no site was requested.")
        layers = {site.layer for site in sites if site.kind == "head"}
        heads = {layer: self.head_writes(layer) for layer in layers if layer < self.n_layers}
        rows = [
            heads[site.layer][:, site.head]
            if site.kind == "head" and site.layer in heads and site.head < self.n_heads
            else self.at(site)
            for site in sites
        ]
        return torch.stack(rows, dim=1)

    def head_writes(self, layer: int) -> Float[Tensor, "B H R D"]:
        """The writes of all heads of one layer."""
        return torch.einsum("bhrd,hdw->bhrw", self.head_values[:, layer], self.out_weights[layer])

    def token_writes(self, site: SiteLike) -> Float[Tensor, "B R T D"]:
        """Splits a head's write by the token it was read from; the parts sum to the head's write.

        Raises:
            UsageError: if the site is no head, or the trace was taken without attention.
        """
        site = as_site(site)
        if site.kind != "head":
            raise UsageError(f"{site}: only a head's write can be split by the tokens it reads from.")
        site.check(self.n_layers, self.n_heads)
        pattern, values = self.attention[:, site.layer, site.head], self.values[:, site.layer, site.head]
        weight = self.out_weights[site.layer][site.head]
        if self.value_scale is None or self.value_shift is None:
            return torch.einsum("brt,btd,dw->brtw", pattern, values, weight)
        scale, shift = self.value_scale[:, site.layer, site.head], self.value_shift[:, site.layer, site.head]
        # Rows of the pattern sum to 1, so that each token carries its share of the shift.
        arriving = values[:, None] * scale[:, :, None] + shift[:, :, None]
        return torch.einsum("brt,brtd,dw->brtw", pattern.to(arriving), arriving, weight.to(arriving))

    def select(self, picture: int) -> "Trace":
        """The trace of one picture of the batch, as a batch of one.

        Raises:
            UsageError: if the batch has no such picture.
        """
        if not 0 <= picture < len(self):
            raise UsageError(f"the trace holds {len(self)} pictures, counted from 0; there is no picture {picture}.")
        row = slice(picture, picture + 1)
        return Trace(
            self.embed[row],
            self.head_values[row],
            self.attn_out[row],
            self.mlp_out[row],
            self.resid_post[row],
            self.out_weights,
            self.attn_bias,
            self.embedding[row],
            None if self.recorded_attention is None else self.recorded_attention[row],
            None if self.recorded_values is None else self.recorded_values[row],
            None if self.value_scale is None else self.value_scale[row],
            None if self.value_shift is None else self.value_shift[row],
            None if self.recorded_neurons is None else self.recorded_neurons.select(row),
        )

    def components(self) -> Float[Tensor, "B K R D"]:
        """Every term of the decomposition: the embedding, each layer's heads, bias and MLP; K = 1 + L (H + 2)."""
        B, R = len(self), self.embed.shape[1]
        terms = [self.embed[:, None]]
        for layer in range(self.n_layers):
            terms.append(self.head_writes(layer))
            terms.append(self.attn_bias[layer].expand(B, 1, R, -1))
            terms.append(self.mlp_out[:, layer, None])
        return torch.cat(terms, dim=1)

    def relative_error(self) -> float:
        """Largest `|sum of the components - final| / |final|` over pictures and readout tokens, summed in float64."""
        total = self.components().double().sum(dim=1)
        final = self.final.double()
        return float(((total - final).norm(dim=-1) / final.norm(dim=-1)).max())

    def check(self, tolerance: float | None = None) -> float:
        """Returns the relative error of the decomposition, and refuses a large one.

        Args:
            tolerance: largest error allowed; by default 1e-5 in float32 and 5e-2 in half precision, where rounding of
                the residual stream accumulates to that order over the layers.

        Raises:
            TraceError: if the components do not add up to the final residual.
        """
        if tolerance is None:
            tolerance = 1e-5 if self.final.dtype in (torch.float32, torch.float64) else 5e-2
        error = self.relative_error()
        if not error <= tolerance:
            raise TraceError(
                f"the components add up to the final residual only within {error:.2g} (allowed: {tolerance:.2g}); "
                "the encoder holds a part that its adapter does not know, or weights that are not finite"
                + (
                    ", or rounds too much in half precision: try --dtype float32."
                    if self.final.dtype not in (torch.float32, torch.float64)
                    else "."
                )
            )
        return error


def _recorded(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise UsageError("this trace holds no attention; take it with encoder.trace(inputs, attention=True).")
    return tensor


def read_from_tokens(
    weights: Float[Tensor, "T"],
    pattern: Float[Tensor, "B R T"],
    values: Float[Tensor, "B T d"],
    scale: Float[Tensor, "B R d"] | None = None,
    shift: Float[Tensor, "B R d"] | None = None,
) -> Float[Tensor, "B R d"]:
    """The part of one head's values that it reads from some tokens.

    Computes `scale * (w pattern) @ values + shift * sum(w pattern)`.

    Args:
        weights: w, the share of each token.
        pattern: the head's attention pattern.
        values: value vectors of every token.
        scale: see `Trace.value_scale`.
        shift: see `Trace.value_shift`.
    """
    weighted = pattern * weights.to(pattern)
    read = weighted @ values
    if scale is None or shift is None:
        return read
    return read * scale + weighted.sum(dim=-1, keepdim=True) * shift
