"""Token traces: values at sites on every token, for decoders that read image tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.decoders import Decoder, DecoderSpec, TokenDecoder, TokenSource
from steerlens.encoders import EXCLUSIVE, Encoder, EncoderSpec, Inputs, NativeEncoder
from steerlens.errors import ModelError, UsageError
from steerlens.lenses.components import Direction, Group, check_vector, direction_site
from steerlens.lenses.readout import precise
from steerlens.lenses.regions import RegionPart
from steerlens.lenses.sae_parts import by_sae, check_sae, place_of, sae_of, writes_on_tokens
from steerlens.saes import SparseAutoencoder
from steerlens.sites import NAMED_KINDS, SAE_KINDS, Site, parse_sites
from steerlens.trace import read_from_tokens

_RECORDED = 32
"""Sites recorded in one forward pass: all heads of a large encoder, on every token, would take gigabytes."""


@dataclass(frozen=True, eq=False)
class TokenTrace:
    """Contents of sites on every token of a batch of pictures.

    Attributes:
        reads: the residuals that the decoder reads, after each of its K layers; K is 1 for most decoders.
        values: for each site, the residual stream at that point, or the component's write into it.
        layers: the K layers.
        partial: for a group or region whose members lie in several layers, its write as it has gathered by each of the
            K layers; the last is that in `values`.
    """

    reads: Float[Tensor, "B K T D"]
    values: Mapping[Site, Float[Tensor, "B T D"]]
    layers: tuple[int, ...]
    partial: Mapping[Site, Float[Tensor, "B K T D"]] = field(default_factory=dict[Site, Tensor])

    @property
    def read(self) -> Float[Tensor, "B T D"]:
        """The residual that the decoder reads; the last of them, if it reads several."""
        return self.reads[:, -1]

    def gathered(self, sites: Sequence[Site]) -> Float[Tensor, "B N K T D"]:
        """Stacks the writes of several components as the decoder's layers hold them: 0 before a component's layer.

        A `vector` belongs to no layer, and is held by all.

        Raises:
            UsageError: as `stack`.
        """
        rows: list[Tensor] = []
        for site, value in zip(sites, self.stack(sites).unbind(dim=1), strict=True):
            there = [layer >= site.layer for layer in self.layers]
            shares = torch.tensor(there, dtype=value.dtype, device=value.device)[:, None, None]
            rows.append(self.partial[site] if site in self.partial else shares * value[:, None])
        return torch.stack(rows, dim=1)

    def stack(self, sites: Sequence[Site]) -> Float[Tensor, "B N T D"]:
        """Stacks the contents of several sites, in their order.

        Raises:
            UsageError: if there is no site, or a site was not traced.
        """
        for site in sites:
            if site not in self.values:
                raise UsageError(f"{site} was not traced: name it when the tokens are traced.")
        if not sites:
            raise UsageError("no site was requested.")
        return torch.stack([self.values[site] for site in sites], dim=1)


def source_of(decoder: Decoder) -> tuple[TokenDecoder, TokenSource]:
    """Returns a decoder of image tokens with the position of these tokens in the encoder.

    Raises:
        ModelError: if the decoder reads something else, or does not say which tokens.
    """
    spec = decoder.spec
    if spec.consumes != "image_tokens":
        raise ModelError(f"decoder {spec.name} reads an image embedding, no image tokens.")
    if spec.tokens is None or not isinstance(decoder, TokenDecoder):
        raise ModelError(f"{spec.name} reads image tokens and does not say which (`spec.tokens`, `tokens()`).")
    return decoder, spec.tokens


def reaching_sites(text: str, n_layers: int, n_heads: int, decoder: DecoderSpec) -> tuple[Site, ...]:
    """Reads sites and patterns like `parse_sites`; a pattern means the sites whose content reaches the decoder.

    Args:
        text: `heads`, `resid_post`, `head.3.*`, ...
        n_layers: L of the encoder.
        n_heads: H.
        decoder: spec of a decoder of image tokens.

    Raises:
        UsageError: if there is no such site, or a site named by its number lies after the tokens.
    """
    source, reaching = decoder.tokens, dict[Site, None]()
    if source is None:
        return parse_sites(text, n_layers, n_heads)
    for part in filter(None, (part.strip() for part in text.split(","))):
        sites = parse_sites(part, n_layers, n_heads)
        try:
            sites = parse_sites(part, source.last_layer(n_layers) + 1, n_heads)
        except UsageError:  # it names a later layer by its number
            for site in sites:
                source.check(site, n_layers, decoder.name)
        reaching.update(dict.fromkeys(sites))
    return tuple(reaching) or parse_sites(text, n_layers, n_heads)


def check_direction(
    direction: Direction, encoder: EncoderSpec, decoder: DecoderSpec, *, name: str = "direction"
) -> None:
    """Checks that a named component can be written on tokens and reaches the decoder.

    Args:
        direction: the component.
        encoder: spec of the encoder.
        decoder: spec of the decoder.
        name: name of the component in messages.

    Raises:
        UsageError: if it cannot or does not.
    """
    if isinstance(direction, Tensor):
        normed = decoder.tokens is None or decoder.tokens.normed
        check_vector(name, direction, encoder.width, centred=encoder.centred and normed)
        return
    if isinstance(direction, SparseAutoencoder):
        check_sae(direction, encoder)
    else:
        direction_site(name, direction)  # refuses what is no component
        direction.check(encoder)
    if decoder.tokens is None:
        return
    if isinstance(direction, SparseAutoencoder) and direction.reads_embedding:
        raise UsageError(
            f"{direction.name} is a sparse autoencoder of the image embedding, and {decoder.name} reads image tokens: "
            "take a decoder of embeddings."
        )
    for site in _members(direction):
        decoder.tokens.check(site, encoder.n_layers, decoder.name)


@torch.no_grad()
def trace_tokens(
    encoder: Encoder,
    decoder: Decoder,
    inputs: Inputs | Tensor,
    sites: Sequence[Site],
    directions: Mapping[str, Direction] | None = None,
) -> TokenTrace:
    """Traces sites on every token, in forward passes that record a few sites each.

    Args:
        encoder: the encoder of the pair.
        decoder: a decoder of its image tokens.
        inputs: the output of `encoder.preprocess`.
        sites: sites to trace; a `vector` is the same on every token.
        directions: directions, groups, regions and sparse autoencoders of the named sites, by name.

    Raises:
        ModelError: if the decoder reads no image tokens.
        UsageError: if the model has no such site, or its content never reaches the decoder.
    """
    named, (_, source) = directions or {}, source_of(decoder)
    L, native = encoder.spec.n_layers, [site for site in sites if site.kind not in (*NAMED_KINDS, *SAE_KINDS)]
    for site in native:
        source.check(site.check(L, encoder.spec.n_heads), L, decoder.spec.name)
    layers = source.layers_read(L)
    posts = [Site("resid_post", layer) for layer in layers]
    contents = dict(_recorded(encoder, inputs, list(dict.fromkeys([*posts, *native]))))
    reads = torch.stack([contents[post] for post in posts], dim=1)
    partial: dict[Site, Tensor] = {}
    for parts in by_sae(sites, named).values():
        sae = sae_of(parts[0], named)
        check_direction(sae, encoder.spec, decoder.spec)
        there = torch.tensor([layer >= place_of(sae, parts[0]).layer for layer in layers], device=reads.device)
        for site, write in zip(parts, writes_on_tokens(encoder, inputs, sae, parts).unbind(dim=1), strict=True):
            contents[site] = write.to(reads)
            if len(layers) > 1:
                partial[site] = there[:, None, None] * contents[site][:, None]
    for site in sites:
        if site.kind in NAMED_KINDS:
            direction = named.get(site.name)
            if (
                direction is None
                or isinstance(direction, SparseAutoencoder)
                or direction_site(site.name, direction) != site
            ):
                raise UsageError(
                    f"no {site.kind} is called {site.name!r}; known: {', '.join(sorted(named)) or 'none'}."
                )
            check_direction(direction, encoder.spec, decoder.spec, name=site.name)
            contents[site] = _written(encoder, inputs, direction, reads[:, -1])
            members = () if isinstance(direction, Tensor) else _members(direction)
            if len(layers) > 1 and members:
                partial[site] = _gathered(encoder, inputs, direction, layers, reads)
    return TokenTrace(reads, contents, layers, partial)


def _recorded(encoder: Encoder, inputs: Inputs | Tensor, sites: Sequence[Site]) -> Iterator[tuple[Site, Tensor]]:
    for start in range(0, len(sites), _RECORDED):
        yield from encoder.record(inputs, sites[start : start + _RECORDED]).items()


def _written(encoder: Encoder, inputs: Inputs | Tensor, direction: Direction, like: Tensor) -> Float[Tensor, "B T D"]:
    if isinstance(direction, Tensor):
        return direction.to(like).expand_as(like)
    if isinstance(direction, RegionPart):
        return region_writes(encoder, inputs, direction).to(like)
    total = torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))
    for _, write in _recorded(encoder, inputs, _members(direction)):
        total += write
    return total.to(like)


def _gathered(
    encoder: Encoder, inputs: Inputs | Tensor, direction: Direction, layers: Sequence[int], like: Tensor
) -> Float[Tensor, "B K T D"]:
    """Computes what a group or region has written by each of the layers."""
    total = torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))
    for own in sorted({member.layer for member in _members(direction)}):
        members = tuple(member for member in _members(direction) if member.layer == own)
        part = replace(direction, heads=members) if isinstance(direction, RegionPart) else Group(members)
        later = torch.tensor([layer >= own for layer in layers], device=total.device)
        total[:, later] += _written(encoder, inputs, part, like[:, -1])[:, None]
    return total.to(like)


@torch.no_grad()
def region_writes(encoder: Encoder, inputs: Inputs | Tensor, part: RegionPart) -> Float[Tensor, "B T D"]:
    """Computes the part of heads' writes that was read from an area, on every token.

    Raises:
        UsageError: if the encoder does not show its attention, or has no such heads or area.
    """
    if not isinstance(encoder, NativeEncoder):
        raise UsageError(f"{encoder.spec.name} does not show its attention, so no head can be split by what it reads.")
    weights, layers = part.area.weights(encoder.spec), encoder.layers()
    with EXCLUSIVE, encoder.recording_attention(range(encoder.spec.n_tokens)) as recorded:
        encoder.embed(inputs)
    writes: list[Tensor] = []
    for site in part.heads:
        pattern, values, *affine = (part[:, site.head] for part in recorded[site.layer] if part is not None)
        read = read_from_tokens(weights, *(precise(part) for part in (pattern, values, *affine)))
        writes.append(read @ precise(layers[site.layer].head_weights()[site.head]))
    return torch.stack(writes).sum(dim=0)


def _members(direction: Direction) -> tuple[Site, ...]:
    if isinstance(direction, Group):
        return direction.members
    if isinstance(direction, RegionPart):
        return direction.heads
    if isinstance(direction, SparseAutoencoder):
        return (place_of(direction, direction.feature(0)),)
    raise UsageError(f"a {type(direction).__name__} cannot be written on image tokens; name heads, groups or regions.")
