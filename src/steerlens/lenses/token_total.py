"""The total lens for decoders that read image tokens: scale a component in the real forward pass, read the tokens.

    e_total(c, s)  = tokens( r of encode( x; c -> (1 + (s - 1) w) c ) )      everything up to r reacts
    e_direct(c, s) = tokens( r + (s - 1) w h_c )                             everything up to r frozen

r is the residual of all tokens where the decoder reads it, after several layers if it combines them, and w in [0,1] a
weight for each token, 1 for the tokens that are written to. With `--tokens all` the component is scaled on every token,
those included that the decoder drops: later layers carry their change to the others. The factor that stands for a
`rho`, and the `rho` that is stated, are those of the Steering Lens, over the tokens that the decoder reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.decoders import Decoder
from steerlens.lenses.controls import control_direction
from steerlens.lenses.image_tokens import TokenSteeringLens, read_tokens
from steerlens.lenses.readout import precise
from steerlens.lenses.real_pass import REMOVED, Change, CleanPass, Part, alike, record_clean, removes_direction
from steerlens.lenses.regions import Area
from steerlens.lenses.strength import visible_norm
from steerlens.lenses.token_trace import TokenTrace, source_of
from steerlens.lenses.total import RealPassLens
from steerlens.sites import SAE_KINDS, Site


@dataclass(frozen=True, eq=False)
class TokenTotalLens(RealPassLens):
    """Lens that shows the total effect of a component on image tokens, everything before the decoder reacting.

    Attributes:
        encoder: the encoder.
        strength: steering strength; a `rho` stands for the factor that the Steering Lens takes for it.
        directions: directions, groups and regions of the named sites, by name.
        at: point of the residual stream where directions are added; None if there are none.
        decoder: a decoder of the encoder's image tokens.
        area: the tokens that are written to; None for all.
    """

    decoder: Decoder = field(kw_only=True)
    area: Area | None = field(default=None, kw_only=True)

    @property
    def weights(self) -> Float[Tensor, "T"]:
        """Weight in [0,1] of every token that is written to."""
        spec = self.encoder.spec
        return torch.ones(spec.n_tokens) if self.area is None else self.area.weights(spec)

    def check(self, sites: Sequence[Site]) -> None:
        """Checks that sites can be changed in the real forward pass, before the decoder reads its tokens.

        Raises:
            UsageError: if a site cannot be changed, or the change would come after the tokens that are read.
        """
        _, source = source_of(self.decoder)
        for site in sites:
            for place, _ in self.places(site):
                source.check(place, self.encoder.spec.n_layers, self.decoder.spec.name)

    def tokens(self, clean: CleanPass, sites: Sequence[Site]) -> Float[Tensor, "B N t D"]:
        """Computes the tokens that the decoder reads, with each component scaled in the real forward pass.

        Raises:
            UsageError: as `check`.
        """
        return self.changed(clean, [Change(site) for site in sites])

    def without(self, clean: CleanPass, sites: Sequence[Site]) -> Float[Tensor, "B N t D"]:
        """Computes the tokens that the decoder reads with each component ablated.

        Raises:
            UsageError: as `check`.
        """
        return self.changed(clean, [Change(site, "ablated") for site in sites])

    def conditioning(self, clean: CleanPass, sites: Sequence[Site]) -> Conditioning:
        """Computes `tokens` as conditioning of a decoder, (B N, t, D): picture by picture, site by site."""
        return Conditioning("image_tokens", self.tokens(clean, sites).flatten(0, 1))

    @torch.no_grad()
    def changed(self, clean: CleanPass, changes: Sequence[Change]) -> Float[Tensor, "B N t D"]:
        """Computes the tokens that the decoder reads under any changes, batched by layer.

        Raises:
            UsageError: as `check`.
        """
        self.check([change.site for change in changes])
        return self._read(self.passes(clean, changes, self._layers))

    @torch.no_grad()
    def direct(self, clean: CleanPass, changes: Sequence[Change]) -> Float[Tensor, "B N t D"]:
        """Computes the direct counterpart of changes: the same change, everything after it frozen (Steering Lens).

        Raises:
            UsageError: as `check`.
        """
        of_change: dict[Change, Tensor] = {}
        for group in alike(changes):
            sites = [change.site for change in group]
            steering, trace = self._steering(group[0]), self._trace(clean, sites)
            if group[0].kind == "control":
                directions = [control_direction(change.site, change.draw, trace.read[0]) for change in group]
                controls = steering.controls(trace, sites, torch.stack(directions))
                tokens = read_tokens(self.encoder, self.decoder, controls)
            elif removes_direction(group[0]):
                tokens = self._read(precise(trace.reads)[:, None] - self._removed(clean, sites)[:, :, None])
            else:
                tokens = steering.tokens(trace, sites)
            of_change |= dict(zip(group, tokens.unbind(dim=1), strict=True))
        return torch.stack([of_change[change] for change in changes], dim=1)

    @torch.no_grad()
    def relative_strength(self, clean: CleanPass, changes: Sequence[Change]) -> Float[Tensor, "B N"]:
        """Computes the signed `rho` of changes, by what each adds directly to the tokens that the decoder reads."""
        of_change: dict[Change, Tensor] = {}
        for group in alike(changes):
            sites = [change.site for change in group]
            steering, trace = self._steering(group[0]), self._trace(clean, sites)
            if removes_direction(group[0]):
                weights = steering.weights().to(trace.read)[:, None]
                read = visible_norm(weights * precise(trace.read)[:, None], centred=steering.centred)
                removed = self._removed(clean, sites).where(weights > 0, 0)
                rhos = -visible_norm(removed, centred=steering.centred) / read
            else:
                rhos = steering.relative_strength(trace, sites)
            of_change |= dict(zip(group, rhos.unbind(dim=1), strict=True))
        return torch.stack([of_change[change] for change in changes], dim=1)

    def coefficients(self, clean: CleanPass, sites: Sequence[Site]) -> Float[Tensor, "B N"]:
        """Computes `s - 1` for each site, as the Steering Lens does, from the tokens that the decoder reads."""
        return self._steering(Change(sites[0])).coefficients(self._trace(clean, sites), sites)

    def control_additions(
        self, clean: CleanPass, change: Change, write: Float[Tensor, "B T D"], factor: Float[Tensor, "B"]
    ) -> Float[Tensor, "B T D"]:
        """Computes the random addition of a control: on each token as long as the component's own change."""
        centred = self._steering(change).centred
        direction = control_direction(change.site, change.draw, write[0])
        sizes = [visible_norm(tensor[..., None, :], centred=centred) for tensor in (write, direction)]
        return (factor[:, None] * sizes[0] / sizes[1])[..., None] * direction

    @property
    def _layers(self) -> tuple[int, ...]:
        """Layers whose residuals the decoder reads, in rising order; most decoders read one."""
        _, source = source_of(self.decoder)
        return source.layers_read(self.encoder.spec.n_layers)

    def _read(self, residuals: Float[Tensor, "B N K T D"]) -> Float[Tensor, "B N t D"]:
        _, source = source_of(self.decoder)
        return read_tokens(self.encoder, self.decoder, residuals if source.layers is not None else residuals[:, :, 0])

    def _steering(self, change: Change) -> TokenSteeringLens:
        strength = REMOVED if change.kind == "ablated" else self.strength
        return TokenSteeringLens(self.encoder, self.decoder, strength, self.area)

    def _trace(self, clean: CleanPass, sites: Sequence[Site]) -> TokenTrace:
        parts, posts = self.parts(clean, sites), [Site("resid_post", layer) for layer in self._layers]
        recorded = record_clean(self.encoder, clean, posts)
        # A component with places has written, by each layer that is read, what it writes at those up to there.
        partial = {
            site: torch.stack([_gathered(parts[site], layer) for layer in self._layers], dim=1)
            for site in sites
            if site.kind in ("group", "region", *SAE_KINDS)
        }
        writes = {site: torch.stack([part.write for part in of_site]).sum(dim=0) for site, of_site in parts.items()}
        return TokenTrace(torch.stack([recorded[post] for post in posts], dim=1), writes, self._layers, partial)

    def _removed(self, clean: CleanPass, sites: Sequence[Site]) -> Float[Tensor, "B N T D"]:
        """Computes what the ablation of directions removes from each token."""
        parts = self.parts(clean, sites)
        weights = self.weights[:, None]
        return torch.stack([weights.to(part.present) * part.present for site in sites for part in parts[site]], dim=1)


def _gathered(parts: Sequence[Part], layer: int) -> Float[Tensor, "B T D"]:
    writes = [part.write if part.place.layer <= layer else torch.zeros_like(part.write) for part in parts]
    return torch.stack(writes).sum(dim=0)
