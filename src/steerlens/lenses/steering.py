"""The Diffusion Steering Lens (DSL): steer a component, freeze later submodules at their clean outputs, decode.

With every later submodule frozen, the residual stream only adds, so the lens computes the steered final residual in
closed form:

    DSL(m, s) = decode( P( LN( r_L + (s - 1) h_m ) ) )

`steer_and_patch` is the definition, carried out hook by hook; the closed form is tested against it.

References: R. Takatsuki, S. Joseph, I. Fujisawa, R. Kanai, "Decoding Vision Transformers: the Diffusion Steering Lens",
arXiv 2504.13763.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.encoders import Encoder, Inputs
from steerlens.errors import UsageError
from steerlens.interventions import Add, Intervention, Patch, Scale
from steerlens.lenses.components import Direction
from steerlens.lenses.readout import precise, read_out, writes
from steerlens.lenses.sae_parts import embedding_parts, of_embedding
from steerlens.lenses.strength import Strength, as_strength, visible_norm
from steerlens.sites import Site, SiteLike, SitesLike, as_site, as_sites
from steerlens.trace import Trace


@dataclass(frozen=True, eq=False, init=False)
class SteeringLens:
    """Lens that shows the direct contribution of a component to the embedding, its indirect effects frozen.

    Attributes:
        encoder: the encoder of the trace.
        strength: steering strength, or its text form such as `rho=1`.
        directions: directions, groups, regions and sparse autoencoders of the named sites, by name.
    """

    encoder: Encoder
    strength: Strength
    directions: Mapping[str, Direction] = field(default_factory=dict)

    name = "steering"

    # Written out, so that type checkers accept a text as strength.
    def __init__(
        self, encoder: Encoder, strength: Strength | str, directions: Mapping[str, Direction] | None = None
    ) -> None:
        object.__setattr__(self, "encoder", encoder)
        object.__setattr__(self, "strength", as_strength(strength))
        object.__setattr__(self, "directions", directions or {})

    @torch.no_grad()
    def embeddings(self, trace: Trace, sites: SitesLike) -> Float[Tensor, "B N E"]:
        """Computes steered image embeddings `P(LN(r_L + c h))`, for every picture of the trace.

        Args:
            trace: the trace of pictures by the lens's encoder.
            sites: sites, or texts that name them, such as `L3H4` or `head.8-11.*`.

        Raises:
            UsageError: if a site is a point of the residual stream, which is not steered, or does not exist.
        """
        return self._by_space(
            trace,
            sites,
            lambda inside: read_out(self.encoder, self.residuals(trace, inside)),
            lambda after: precise(trace.embedding)[:, None] + self._after(trace, after)[0],
        )

    def conditioning(self, trace: Trace, sites: SitesLike) -> Conditioning:
        """Computes the same as conditioning of a decoder, (B N, E): picture by picture, site by site."""
        return Conditioning("image_embedding", self.embeddings(trace, sites).float().flatten(0, 1))

    def residuals(self, trace: Trace, sites: SitesLike) -> Float[Tensor, "B N R D"]:
        """Computes the steered final residuals `r_L + c h` of the readout tokens, in at least float32."""
        write = self._writes(trace, sites)
        return precise(trace.final)[:, None] + self._factors(trace, write)[..., None, None] * write

    def coefficients(self, trace: Trace, sites: SitesLike) -> Float[Tensor, "B N"]:
        """Computes the factor `c` of each site's write: `s - 1`, or the factor that gives the relative strength."""
        return self._by_space(
            trace,
            sites,
            lambda inside: self._factors(trace, self._writes(trace, inside)),
            lambda after: self._after(trace, after)[1],
        )

    def relative_strength(self, trace: Trace, sites: SitesLike) -> Float[Tensor, "B N"]:
        """Computes the signed `rho` at each site: `(s - 1) |C h| / |C r_L|`, of parts of e `(s - 1) |h| / |e|`."""
        return self._by_space(
            trace,
            sites,
            lambda inside: self._relative(trace, inside),
            lambda after: self._after(trace, after)[2],
        )

    def _relative(self, trace: Trace, sites: Sequence[Site]) -> Float[Tensor, "B N"]:
        write, centred = self._writes(trace, sites), self.encoder.spec.centred
        final = precise(trace.final)[:, None]
        return self._factors(trace, write) * visible_norm(write, centred=centred) / visible_norm(final, centred=centred)

    def _by_space(
        self,
        trace: Trace,
        sites: SitesLike,
        inside: Callable[[Sequence[Site]], Tensor],
        after: Callable[[Sequence[Site]], Tensor],
    ) -> Float[Tensor, "B N *E"]:
        """Computes values of components of the residual stream one way, and of parts of the embedding another."""
        chosen = as_sites(sites, trace.n_layers, trace.n_heads)
        parts = of_embedding(chosen, self.directions)
        if not parts:
            return inside(chosen)
        of_site = dict(zip(parts, after(parts).unbind(dim=1), strict=True))
        if others := [site for site in chosen if site not in of_site]:
            of_site |= dict(zip(others, inside(others).unbind(dim=1), strict=True))
        return torch.stack([of_site[site] for site in chosen], dim=1)

    def _after(
        self, trace: Trace, sites: Sequence[Site]
    ) -> tuple[Float[Tensor, "B N E"], Float[Tensor, "B N"], Float[Tensor, "B N"]]:
        """Computes what is added to the embedding for parts of it, with the factors and relative strengths."""
        write, embedding = precise(embedding_parts(trace, sites, self.directions)), precise(trace.embedding)
        # One token, which no norm follows.
        factors = self.strength.coefficient(embedding[:, None, None], write[:, :, None], centred=False)
        rhos = factors * write.norm(dim=-1) / embedding.norm(dim=-1, keepdim=True)
        return factors[..., None] * write, factors, rhos

    def _factors(self, trace: Trace, write: Float[Tensor, "B N R D"]) -> Float[Tensor, "B N"]:
        return self.strength.coefficient(precise(trace.final)[:, None], write, centred=self.encoder.spec.centred)

    def _writes(self, trace: Trace, sites: SitesLike) -> Float[Tensor, "B N R D"]:
        sites = as_sites(sites, trace.n_layers, trace.n_heads)
        for site in sites:
            if not site.is_write:
                raise UsageError(
                    f"{site} holds the residual stream, which the Diffusion Lens shows; the Steering Lens takes what "
                    "is added to it: heads, attn_out.N, mlp_out.N or a direction."
                )
        return precise(writes(self.encoder, trace, sites, self.directions))


@torch.no_grad()
def steer_and_patch(
    encoder: Encoder,
    inputs: Inputs | Tensor,
    site: SiteLike,
    factor: float,
    direction: Float[Tensor, "D"] | None = None,
    layer: int = 0,
) -> Float[Tensor, "B E"]:
    """Computes DSL by its definition, in two forward passes: one records, one is steered and patched.

    Slow and plain on purpose: the closed form is tested against it, so it does not use the additivity of the stream.

    Args:
        encoder: any encoder.
        inputs: the output of `encoder.preprocess`.
        site: the component to amplify, or a `vector` site.
        factor: s; the component is multiplied by it (a direction is added s - 1 times).
        direction: the direction of a `vector` site.
        layer: for a `vector` site, the layer after which it is added.

    Raises:
        UsageError: if the site is a point of the residual stream.
    """
    site = as_site(site)
    if not site.is_write:
        raise UsageError(f"{site} is not the output of a submodule and cannot be steered.")
    if site.kind in ("group", "region"):
        raise UsageError(f"{site} is no one place in the model; steer its members one by one.")
    later = later_submodules(site, layer, encoder.spec.n_layers)
    clean = encoder.record(inputs, later) if later else {}
    steer: Intervention
    if site.kind == "vector":
        if direction is None:
            raise UsageError(f"{site} was given no direction.")
        steer = Add(Site("resid_post", layer), vector=(factor - 1) * direction)
    else:
        steer = Scale(site, factor=factor)
    return encoder.embed(inputs, [steer, *(Patch(submodule, value=clean[submodule]) for submodule in later)])


def later_submodules(site: Site, vector_layer: int, n_layers: int) -> list[Site]:
    """Returns the submodules after a component in the first `n_layers` layers; a `vector` follows `vector_layer`."""
    layer = vector_layer if site.kind == "vector" else site.layer
    same_layer = [Site("mlp_out", layer)] if site.kind in ("head", "attn_out") else []
    return same_layer + [Site(kind, after) for after in range(layer + 1, n_layers) for kind in ("attn_out", "mlp_out")]
