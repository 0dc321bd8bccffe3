"""Lenses for decoders that read image tokens: they act on the residual stream of every token, not of the class token.

With r the residual of all tokens T at the point where the decoder reads it, x the value at a site, h the write of a
component into each token, and w in [0,1] a weight for each token (1 for the tokens that are steered):

    Diffusion Lens    decode( tokens( x ) )                    all tokens
    Steering Lens     decode( tokens( r + c w h ) )            every submodule between h and r frozen
    factor            c = s - 1                                s = 1 is the clean run
    relative          rho = c |C(w h)| / |C(w r)|              rho = 0 is the clean run; signed

The norms run over all steered tokens and over width, so one number steers a picture: a head that writes into a single
patch keeps that pattern. C removes the mean over width if a LayerNorm follows that would remove it, and is the identity
if the decoder reads tokens without a norm. Tokens that the decoder drops have w = 0.

A decoder may combine the residuals r_k after several layers k. The write h of a component of layer n is part of those
from k = n on, so the Steering Lens reads

    tokens( r_k + c w h [k >= n], for all k )                  r is the last r_k in `rho`

and the Diffusion Lens reads `x` in place of every r_k; for a point of the residual stream, r_k of the layers before it
stay, as if the encoder ended there.

`image_tokens_by_hooks` is the definition, hook by hook; the closed form is tested against it.

References: M. Toker et al., "Diffusion Lens", arXiv 2403.05846; R. Takatsuki et al., "Decoding Vision Transformers: the
Diffusion Steering Lens", arXiv 2504.13763 (both for one readout token).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.decoders import Decoder
from steerlens.encoders import Encoder
from steerlens.errors import UsageError
from steerlens.lenses.readout import precise
from steerlens.lenses.regions import Area
from steerlens.lenses.strength import Strength, visible_norm
from steerlens.lenses.token_trace import TokenTrace, source_of
from steerlens.sites import Site


@dataclass(frozen=True, eq=False)
class TokenDiffusionLens:
    """Lens that shows the content of a site on all tokens, as if the decoder read its tokens there.

    Attributes:
        encoder: the encoder of the trace.
        decoder: a decoder of its image tokens.
    """

    encoder: Encoder
    decoder: Decoder

    name = "diffusion"

    def tokens(self, trace: TokenTrace, sites: Sequence[Site]) -> Float[Tensor, "B N t D"]:
        """Computes the tokens that the decoder reads, `tokens(x)`, in float32.

        Raises:
            UsageError: if a site was not traced.
            ModelError: if the decoder reads no image tokens.
        """
        contents = trace.stack(sites)
        if source_of(self.decoder)[1].layers is None:
            return read_tokens(self.encoder, self.decoder, contents)
        rows: list[Tensor] = []
        for site, content in zip(sites, contents.unbind(dim=1), strict=True):
            before = [not site.is_write and layer < site.layer for layer in trace.layers]
            kept = torch.tensor(before, device=content.device)[:, None, None]
            rows.append(torch.where(kept, trace.reads, content[:, None]))
        return read_tokens(self.encoder, self.decoder, torch.stack(rows, dim=1))

    def conditioning(self, trace: TokenTrace, sites: Sequence[Site]) -> Conditioning:
        """Computes the same as conditioning of a decoder, (B N, t, D): picture by picture, site by site.

        Raises:
            UsageError: if a site was not traced.
        """
        return Conditioning("image_tokens", self.tokens(trace, sites).flatten(0, 1))


@dataclass(frozen=True, eq=False)
class TokenSteeringLens:
    """Lens that shows the direct contribution of a component to some or all tokens, its indirect effects frozen.

    Attributes:
        encoder: the encoder of the trace.
        decoder: a decoder of its image tokens.
        strength: steering strength.
        area: the steered tokens; None for all that the decoder reads.
    """

    encoder: Encoder
    decoder: Decoder
    strength: Strength
    area: Area | None = None

    name = "steering"

    def weights(self) -> Float[Tensor, "T"]:
        """Returns the weight w in [0,1] of every token; 0 for tokens that the decoder drops.

        Raises:
            UsageError: if there is no such token, or the decoder reads none of them.
        """
        spec = self.encoder.spec
        weights = torch.ones(spec.n_tokens) if self.area is None else self.area.weights(spec).clone()
        _, source = source_of(self.decoder)
        if source.patches_only:
            weights[: spec.first_patch] = 0
        if not bool(weights.any()):
            raise UsageError(
                f"tokens {self.area}: {self.decoder.spec.name} reads none of them"
                + (", since it drops the class token and registers." if source.patches_only else ".")
            )
        return weights

    def residuals(self, trace: TokenTrace, sites: Sequence[Site]) -> Float[Tensor, "B N *K T D"]:
        """Computes the steered residuals `r + c w h` of all tokens at the decoder's layer, in at least float32.

        They are (B,N,T,D), or (B,N,K,T,D) for a decoder that combines K layers.

        Raises:
            UsageError: if a site is a point of the residual stream, which is not steered, or was not traced; or if
                there is no steered token, or none that the decoder reads.
            ModelError: if the decoder reads no image tokens.
        """
        return self._added(trace, sites, self._gathered(trace, sites))

    def tokens(self, trace: TokenTrace, sites: Sequence[Site]) -> Float[Tensor, "B N t D"]:
        """Computes the tokens that the decoder reads from the steered residuals, in float32.

        Raises:
            UsageError: as `residuals`.
        """
        return read_tokens(self.encoder, self.decoder, self.residuals(trace, sites))

    def conditioning(self, trace: TokenTrace, sites: Sequence[Site]) -> Conditioning:
        """Computes the same as conditioning of a decoder, (B N, t, D): picture by picture, site by site.

        Raises:
            UsageError: as `residuals`.
        """
        return Conditioning("image_tokens", self.tokens(trace, sites).flatten(0, 1))

    def coefficients(self, trace: TokenTrace, sites: Sequence[Site]) -> Float[Tensor, "B N"]:
        """Computes the factor `c` of each site's write: `s - 1`, or the factor that gives the relative strength.

        Raises:
            UsageError: as `residuals`.
        """
        return self._steered(trace, sites)[2]

    def relative_strength(self, trace: TokenTrace, sites: Sequence[Site]) -> Float[Tensor, "B N"]:
        """Computes the signed `rho` of this strength at each site, over the steered tokens.

        Raises:
            UsageError: as `residuals`.
        """
        read, write, factors = self._steered(trace, sites)
        centred, weights = self.centred, self.weights().to(read)[:, None]
        return factors * visible_norm(write, centred=centred) / visible_norm(weights * read, centred=centred)

    def controls(
        self, trace: TokenTrace, sites: Sequence[Site], directions: Float[Tensor, "N T D"]
    ) -> Float[Tensor, "B N *K T D"]:
        """Steers residuals along other directions, on each token exactly as strongly as the site's, in float32 or more.

        Args:
            trace: a trace that contains the sites.
            sites: the sites of the controls.
            directions: for each site, a direction for every token; their norms are ignored.

        Raises:
            UsageError: as `residuals`.
        """
        write, centred = self._gathered(trace, sites), self.centred
        along = directions.to(write)[None, :, None]
        sizes = visible_norm(write[..., None, :], centred=centred), visible_norm(along[..., None, :], centred=centred)
        return self._added(trace, sites, along * (sizes[0] / sizes[1].where(sizes[1] > 0, 1))[..., None])

    def _gathered(self, trace: TokenTrace, sites: Sequence[Site]) -> Float[Tensor, "B N K T D"]:
        writes = precise(trace.gathered(sites))
        return self.weights().to(writes)[:, None] * writes

    def _added(
        self, trace: TokenTrace, sites: Sequence[Site], additions: Float[Tensor, "B N K T D"]
    ) -> Float[Tensor, "B N *K T D"]:
        """Adds to the residuals of each layer that is read, by the strength of each site."""
        _, _, factors = self._steered(trace, sites)
        added = precise(trace.reads)[:, None] + factors[..., None, None, None] * additions
        return added[:, :, 0] if source_of(self.decoder)[1].layers is None else added

    def _steered(self, trace: TokenTrace, sites: Sequence[Site]) -> tuple[Tensor, Tensor, Tensor]:
        for site in sites:
            if not site.is_write:
                raise UsageError(
                    f"{site} holds the residual stream, which the Diffusion Lens shows; the Steering Lens takes what "
                    "is added to it: heads, attn_out.N, mlp_out.N or a direction."
                )
        read, contents = precise(trace.read)[:, None], precise(trace.stack(sites))
        weights = self.weights().to(read)[:, None]
        write = weights * contents
        return read, write, self.strength.coefficient(weights * read, write, centred=self.centred)

    @property
    def centred(self) -> bool:
        """True if a norm that removes the mean over width comes between the residual and the decoder."""
        return source_of(self.decoder)[1].normed and self.encoder.spec.centred


@torch.no_grad()
def read_tokens(encoder: Encoder, decoder: Decoder, residuals: Float[Tensor, "B N *K T D"]) -> Float[Tensor, "B N t D"]:
    """Computes the tokens that a decoder reads from many residuals, in float32."""
    reader, _ = source_of(decoder)
    return reader.tokens(residuals.flatten(0, 1).to(encoder.dtype)).float().unflatten(0, residuals.shape[:2])
