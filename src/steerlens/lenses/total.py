"""The total lens: scale a component in the real forward pass, let everything after it react, decode.

    e_total(c, s)  = encode( x; c -> s c )              every token, everything downstream reacts
    e_direct(c, s) = P( LN( r_L + (s - 1) h_c ) )       the Diffusion Steering Lens: everything downstream frozen
    e_without(c)   = e_total(c, 0)                      the embedding that the model would give without the component

The Steering Lens shows what a component writes into the final residual itself; the total lens adds what later layers
make of the change. A relative strength `rho` stands for the factor `s` that the Steering Lens takes for it, so both
lenses make the same change. A direction is added on every token at one point of the residual stream; its ablation
removes the residual's component along it there. A control adds the random direction of the Steering Lens's control
where the component enters: on the readout tokens exactly as long, on every other token as long as the component's own
change there.

References: K. Wang et al., "Interpretability in the Wild", arXiv 2211.00593 (direct and total effects);
A. Arditi et al., "Refusal in Language Models Is Mediated by a Single Direction", arXiv 2406.11717 (ablating a
direction); R. Takatsuki et al., "Decoding Vision Transformers: the Diffusion Steering Lens", arXiv 2504.13763.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.encoders import Encoder, Inputs
from steerlens.errors import UsageError
from steerlens.lenses.components import Direction, check_vector
from steerlens.lenses.controls import control_direction, steer_directions
from steerlens.lenses.readout import precise, read_out
from steerlens.lenses.real_pass import (
    REMOVED,
    TOKENS,
    Change,
    ChangeKind,
    CleanPass,
    Part,
    Row,
    alike,
    clean_pass,
    places_of,
    record_clean,
    removes_direction,
    run_rows,
)
from steerlens.lenses.regions import RegionPart
from steerlens.lenses.sae_parts import sae_of, writes_on_tokens
from steerlens.lenses.steering import SteeringLens
from steerlens.lenses.strength import Strength, as_strength, visible_norm
from steerlens.lenses.token_trace import region_writes
from steerlens.saes import SparseAutoencoder
from steerlens.sites import NAMED_KINDS, SAE_KINDS, Site, SiteLike, SitesLike, as_site, as_sites


@dataclass(frozen=True, eq=False)
class RealPassLens(ABC):
    """Base of the total lenses: turns changes of components into rows of real forward passes.

    Attributes:
        encoder: the encoder.
        strength: steering strength.
        directions: directions, groups, regions and sparse autoencoders of the named sites, by name.
        at: point of the residual stream where directions are added; None if there are none.
    """

    encoder: Encoder
    strength: Strength
    directions: Mapping[str, Direction] = field(default_factory=dict)
    at: Site | None = None

    name = "total"

    @abstractmethod
    def coefficients(self, clean: CleanPass, sites: Sequence[Site]) -> Float[Tensor, "B N"]:
        """Computes `s - 1` for each site: what the Steering Lens multiplies its write by."""

    @abstractmethod
    def control_additions(
        self, clean: CleanPass, change: Change, write: Float[Tensor, "B T D"], factor: Float[Tensor, "B"]
    ) -> Float[Tensor, "B T D"]:
        """Computes the random addition of a control on every token."""

    @property
    def weights(self) -> Float[Tensor, "T"]:
        """Weights of the change on every token, in [0,1]."""
        return torch.ones(self.encoder.spec.n_tokens)

    def check(self, sites: Sequence[Site]) -> None:
        """Checks that sites can be changed in the real forward pass.

        Raises:
            UsageError: if a site is a point of the residual stream, a direction without a place, or a region of heads
                of several layers.
        """
        for site in sites:
            self.places(site)

    def batches(self, changes: Sequence[Change], pictures: int = 1) -> list[tuple[Change, ...]]:
        """Splits changes into those that share a forward pass: of the same first layer, and few enough for memory.

        Raises:
            UsageError: as `check`.
        """
        most = max(1, TOKENS // (self.encoder.spec.n_tokens * pictures))
        by_layer: dict[int, list[Change]] = {}
        for change in changes:
            first = min(max(place.layer, 0) for place, _ in self.places(change.site))
            by_layer.setdefault(first, []).append(change)
        return [
            tuple(of_layer[start : start + most])
            for _, of_layer in sorted(by_layer.items())
            for start in range(0, len(of_layer), most)
        ]

    def passes(self, clean: CleanPass, changes: Sequence[Change], after: Sequence[int] | None = None) -> Tensor:
        """Runs the real passes of changes.

        Args:
            clean: the clean pass of B pictures.
            changes: the N changes.
            after: K layers whose residuals are returned, in rising order; None for the embeddings.

        Returns:
            Embeddings (B,N,E), or residuals (B,N,K,T,D).

        Raises:
            UsageError: as `check`, or if nothing is to be changed.
        """
        if not changes:
            raise UsageError("no site was requested.")
        of_change: dict[Change, Tensor] = {}
        for batch in self.batches(changes, len(clean)):
            results = run_rows(self.encoder, clean, list(self._rows(clean, batch)), after)
            of_change |= dict(zip(batch, results.unflatten(0, (len(batch), len(clean))), strict=True))
        return torch.stack([of_change[change] for change in changes], dim=1)

    def places(self, site: Site) -> tuple[tuple[Site, Site | None], ...]:
        """Returns the places where a component enters the residual stream, each with the site that enters there.

        Raises:
            UsageError: if there is no such component, or it has no place in the real forward pass.
        """
        if site.kind in SAE_KINDS:
            sae_of(site, self.directions)
        if site.kind in NAMED_KINDS and site.name not in self.directions:
            raise UsageError(f"no {site.kind} is called {site.name!r}; known: {', '.join(self.directions) or 'none'}.")
        places = places_of(site, self.directions.get(site.name), self.at)
        for place, source in places:
            (source or place).check(self.encoder.spec.n_layers, self.encoder.spec.n_heads)
        return places

    def _rows(self, clean: CleanPass, changes: Sequence[Change]) -> Iterator[Row]:
        """Yields the rows of changes: change by change, picture by picture."""
        sites = list(dict.fromkeys(change.site for change in changes))
        factors = dict(zip(sites, self.coefficients(clean, sites).unbind(dim=1), strict=True))
        of_site = self.parts(clean, sites)
        for change in changes:
            parts, factor = of_site[change.site], factors[change.site]
            additions, scaled = dict[Site, Tensor](), dict[Site, Tensor]()
            if change.kind == "control":
                additions = self._control(clean, change, parts, factor)
            elif len(parts) == 1:
                additions = {parts[0].place: self._addition(change, parts[0], factor)}
            else:
                # Later members of a group react to earlier ones: they are scaled as they are in the running pass.
                steps = -torch.ones_like(factor) if change.kind == "ablated" else factor
                scaled = {part.source: 1 + steps[:, None] * self.weights.to(steps) for part in parts if part.source}
            for picture in range(len(clean)):
                yield Row(
                    picture,
                    {site: added[picture] for site, added in additions.items()},
                    {site: by_token[picture] for site, by_token in scaled.items()},
                )

    def parts(self, clean: CleanPass, sites: Sequence[Site]) -> dict[Site, list[Part]]:
        """Computes the writes of components on every token in the clean pass, place by place.

        Raises:
            UsageError: as `check`, or if a direction has another width than the encoder.
        """
        own = record_clean(
            self.encoder, clean, [source or place for site in sites for place, source in self.places(site)]
        )
        return {site: self._parts(clean, site, own) for site in sites}

    def _parts(self, clean: CleanPass, site: Site, own: Mapping[Site, Tensor]) -> list[Part]:
        places, direction = self.places(site), self.directions.get(site.name)
        if isinstance(direction, SparseAutoencoder):
            write = precise(writes_on_tokens(self.encoder, clean.inputs, direction, [site])[:, 0])
            return [Part(place, None, write, write) for place, _ in places]
        if isinstance(direction, RegionPart):
            write = precise(region_writes(self.encoder, clean.inputs, direction))
            return [Part(place, None, write, write) for place, _ in places]
        if site.kind == "vector" and isinstance(direction, Tensor):
            ((place, _),) = places
            value = own[place]
            check_vector(site.name, direction, value.shape[-1], centred=False)
            write = direction.to(value).expand_as(value)
            unit = torch.nn.functional.normalize(write, dim=-1)
            return [Part(place, None, write, (value * unit).sum(dim=-1, keepdim=True) * unit)]
        return [Part(place, source, own[source or place], own[source or place]) for place, source in places]

    def _addition(self, change: Change, part: Part, factor: Float[Tensor, "B"]) -> Float[Tensor, "B T D"]:
        """Computes what a scaled or ablated component with one place adds there."""
        weights = self.weights.to(factor)[:, None]
        return weights * (-part.present if change.kind == "ablated" else factor[:, None, None] * part.write)

    def _control(
        self, clean: CleanPass, change: Change, parts: Sequence[Part], factor: Float[Tensor, "B"]
    ) -> dict[Site, Float[Tensor, "B T D"]]:
        """Computes the additions of a control; members of a group share it in proportion to their writes."""
        writes = self.weights.to(factor)[:, None] * torch.stack([part.write for part in parts]).sum(dim=0)
        whole = self.control_additions(clean, change, writes, factor)
        if len(parts) == 1:
            return {parts[0].place: whole}
        sizes = torch.stack([part.write.norm(dim=-1, keepdim=True) for part in parts])
        shares = sizes / sizes.sum(dim=0).clamp_min(torch.finfo(sizes.dtype).tiny)
        additions: dict[Site, Tensor] = {}
        for part, share in zip(parts, shares, strict=True):
            earlier = additions.get(part.place)
            additions[part.place] = share * whole if earlier is None else earlier + share * whole
        return additions


@dataclass(frozen=True, eq=False, init=False)
class TotalLens(RealPassLens):
    """Lens that shows the total effect of a component on the embedding, everything after it reacting.

        e_total(c, s) = encode( x; c -> s c )

    Attributes:
        encoder: the encoder.
        strength: steering strength, or its text form such as `s=5`; a `rho` stands for the factor that the Steering
            Lens takes for it.
        directions: directions, groups, regions and sparse autoencoders of the named sites, by name.
        at: point of the residual stream where directions are added; None if there are none.

    References: R. Takatsuki et al., arXiv 2504.13763 (the direct lens); K. Wang et al., arXiv 2211.00593.
    """

    # Written out, so that type checkers accept texts.
    def __init__(
        self,
        encoder: Encoder,
        strength: Strength | str,
        directions: Mapping[str, Direction] | None = None,
        at: SiteLike | None = None,
    ) -> None:
        object.__setattr__(self, "encoder", encoder)
        object.__setattr__(self, "strength", as_strength(strength))
        object.__setattr__(self, "directions", directions or {})
        object.__setattr__(self, "at", None if at is None else as_site(at))

    def clean(self, inputs: CleanPass | Inputs | Tensor, *, neurons: bool = False) -> CleanPass:
        """Returns a clean pass as it is, and runs that of inputs; with its neurons, if any are to be changed."""
        if isinstance(inputs, CleanPass):
            return inputs
        regions = any(isinstance(direction, RegionPart) for direction in self.directions.values())
        return clean_pass(self.encoder, inputs, attention=regions, neurons=neurons)

    def embeddings(self, inputs: CleanPass | Inputs | Tensor, sites: SitesLike) -> Float[Tensor, "B N E"]:
        """Computes image embeddings with each component scaled in the real forward pass.

        Args:
            inputs: the output of `encoder.preprocess`, or a clean pass (`clean`), which several calls can share.
            sites: the N components, or texts that name them, such as `L3H4` or `head.8-11.*`.

        Raises:
            UsageError: if a site cannot be changed in the real forward pass, or does not exist.
        """
        return self._changed(inputs, sites, "scaled")

    def without(self, inputs: CleanPass | Inputs | Tensor, sites: SitesLike) -> Float[Tensor, "B N E"]:
        """Computes image embeddings with each component ablated, as the model would give them without it.

        Raises:
            UsageError: as `embeddings`.
        """
        return self._changed(inputs, sites, "ablated")

    def conditioning(self, inputs: CleanPass | Inputs | Tensor, sites: SitesLike) -> Conditioning:
        """Computes `embeddings` as conditioning of a decoder, (B N, E): picture by picture, site by site."""
        return Conditioning("image_embedding", self.embeddings(inputs, sites).float().flatten(0, 1))

    @torch.no_grad()
    def changed(self, clean: CleanPass, changes: Sequence[Change]) -> Float[Tensor, "B N E"]:
        """Computes image embeddings under any changes, batched by layer.

        Raises:
            UsageError: as `embeddings`.
        """
        return self.passes(clean, changes)

    @torch.no_grad()
    def direct(self, clean: CleanPass, changes: Sequence[Change]) -> Float[Tensor, "B N E"]:
        """Computes the direct counterpart of changes: the same change, everything after it frozen (Steering Lens).

        Raises:
            UsageError: as `embeddings`.
        """
        of_change: dict[Change, Tensor] = {}
        for group in alike(changes):
            sites = [change.site for change in group]
            if group[0].kind == "control":
                like, rho = clean.trace.final[0], self.relative_strength(clean, group)
                directions = torch.stack([control_direction(change.site, change.draw, like) for change in group])
                embeddings = steer_directions(
                    self.encoder, clean.trace, directions.expand(len(clean), *directions.shape), rho
                )
            elif removes_direction(group[0]):
                removed = torch.stack([self._removed(clean, site) for site in sites], dim=1)
                embeddings = read_out(self.encoder, precise(clean.trace.final)[:, None] - removed)
            else:
                embeddings = self._steering(group[0]).embeddings(clean.trace, sites)
            of_change |= dict(zip(group, embeddings.unbind(dim=1), strict=True))
        return torch.stack([of_change[change] for change in changes], dim=1)

    @torch.no_grad()
    def relative_strength(self, clean: CleanPass, changes: Sequence[Change]) -> Float[Tensor, "B N"]:
        """Computes the signed `rho` of changes, by what each adds to the final residual directly."""
        of_change: dict[Change, Tensor] = {}
        for group in alike(changes):
            sites = [change.site for change in group]
            if removes_direction(group[0]):
                centred, final = self.encoder.spec.centred, precise(clean.trace.final)[:, None]
                removed = torch.stack([self._removed(clean, site) for site in sites], dim=1)
                rhos = -visible_norm(removed, centred=centred) / visible_norm(final, centred=centred)
            else:
                rhos = self._steering(group[0]).relative_strength(clean.trace, sites)
            of_change |= dict(zip(group, rhos.unbind(dim=1), strict=True))
        return torch.stack([of_change[change] for change in changes], dim=1)

    def coefficients(self, clean: CleanPass, sites: Sequence[Site]) -> Float[Tensor, "B N"]:
        """Computes `s - 1` for each site, as the Steering Lens does, from the readout tokens."""
        return SteeringLens(self.encoder, self.strength, self.directions).coefficients(clean.trace, sites)

    def control_additions(
        self, clean: CleanPass, change: Change, write: Float[Tensor, "B T D"], factor: Float[Tensor, "B"]
    ) -> Float[Tensor, "B T D"]:
        """Computes the random addition of a control: on the readout tokens, exactly that of the Steering Lens."""
        centred, final = self.encoder.spec.centred, precise(clean.trace.final)
        readout = control_direction(change.site, change.draw, final[0])
        direction = readout[:1].expand(write.shape[1:])
        sizes = visible_norm(write[..., None, :], centred=centred) / visible_norm(readout[:1], centred=centred)
        added = (factor[:, None] * sizes)[..., None] * direction
        rho = self._steering(change).relative_strength(clean.trace, [change.site])[:, 0]
        along = rho * visible_norm(final, centred=centred) / visible_norm(readout, centred=centred)
        index = torch.arange(write.shape[1], device=write.device)
        if self.encoder.spec.readout_tokens is not None:
            index = torch.tensor(self.encoder.spec.readout_tokens, device=write.device)
        added[:, index] = (along[:, None, None] * readout).to(added)
        return added

    def _changed(
        self, inputs: CleanPass | Inputs | Tensor, sites: SitesLike, kind: ChangeKind
    ) -> Float[Tensor, "B N E"]:
        named = self._named(sites)
        clean = self.clean(inputs, neurons=any(site.kind == "neuron" for site in named))
        return self.changed(clean, [Change(site, kind) for site in named])

    def _named(self, sites: SitesLike) -> tuple[Site, ...]:
        return as_sites(sites, self.encoder.spec.n_layers, self.encoder.spec.n_heads)

    def _steering(self, change: Change) -> SteeringLens:
        strength = REMOVED if change.kind == "ablated" else self.strength
        return SteeringLens(self.encoder, strength, self.directions)

    def _removed(self, clean: CleanPass, site: Site) -> Float[Tensor, "B R D"]:
        """Computes what the ablation of a direction removes from the readout tokens."""
        (part,) = self.parts(clean, [site])[site]
        tokens = self.encoder.spec.readout_tokens
        return part.present if tokens is None else part.present[:, list(tokens)]
