"""Lenses for decoders that read image tokens: they act on the residual stream of every token, not of the class token.

With r the residual of all tokens T at the point where the decoder reads it, x what a site holds there, h what a
component writes into each token, and w in [0,1] a weight for each token (1 for the tokens that are written to):

    Diffusion Lens    decode( tokens( x ) )                    all tokens
    Steering Lens     decode( tokens( r + c w h ) )            every submodule between h and r held still
    factor            c = s - 1                                s = 1 is the clean run
    relative          rho = |c C(w h)| / |C(w r)|              rho = 0 is the clean run

The norms run over all tokens that are written to and over width, so one number steers a picture: a head that writes
into one patch alone keeps that pattern. C removes the mean over width where a LayerNorm follows that would remove it,
and is the identity where the decoder reads tokens without a norm. Tokens that the decoder drops have w = 0.
`image_tokens_by_hooks` is the definition, hook by hook; the tests hold the closed form against it.

References: M. Toker et al., "Diffusion Lens", arXiv 2403.05846; R. Takatsuki et al., "Decoding Vision Transformers: the
Diffusion Steering Lens", arXiv 2504.13763 (both for one readout token).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.conditioning import Conditioning
from steerlens.decoders.base import Decoder, DecoderSpec, TokenDecoder, TokenSource
from steerlens.encoders.base import Encoder, EncoderSpec, Inputs
from steerlens.encoders.native import EXCLUSIVE, NativeEncoder
from steerlens.errors import ModelError, UsageError
from steerlens.lenses.components import Group
from steerlens.lenses.readout import Direction, direction_site, precise
from steerlens.lenses.regions import Area, RegionPart, parse_area
from steerlens.lenses.strength import Strength, visible_norm
from steerlens.sites import NAMED_KINDS, Site, parse_sites

_RECORDED = 32
"""Sites recorded in one forward pass: all heads of a large encoder, on every token, would take gigabytes."""


@dataclass(frozen=True, eq=False)
class TokenTrace:
    """What sites hold on every token of a batch of pictures.

    Attributes:
        read: the residual that the decoder's tokens are made from.
        held: by site, the residual stream there or what is written into it.
    """

    read: Float[Tensor, "B T D"]
    held: Mapping[Site, Float[Tensor, "B T D"]]

    def stack(self, sites: Sequence[Site]) -> Float[Tensor, "B N T D"]:
        """What several sites hold, in their order.

        Raises:
            UsageError: if there is no site, or one was not traced.
        """
        for site in sites:
            if site not in self.held:
                raise UsageError(f"{site} was not traced: name it when the tokens are traced.")
        if not sites:
            raise UsageError("no site was asked for.")
        return torch.stack([self.held[site] for site in sites], dim=1)


def source_of(decoder: Decoder) -> tuple[TokenDecoder, TokenSource]:
    """A decoder as one of image tokens, and where in the encoder it reads them.

    Raises:
        ModelError: if it reads something else, or does not say which tokens.
    """
    spec = decoder.spec
    if spec.consumes != "image_tokens":
        raise ModelError(f"decoder {spec.name} reads an image embedding, no image tokens.")
    if spec.tokens is None or not isinstance(decoder, TokenDecoder):
        raise ModelError(f"{spec.name} reads image tokens and does not say which (`spec.tokens`, `tokens()`).")
    return decoder, spec.tokens


def reaching_sites(text: str, n_layers: int, n_heads: int, decoder: DecoderSpec) -> tuple[Site, ...]:
    """Sites and patterns as `parse_sites` reads them; a pattern means the sites whose content reaches the decoder.

    Args:
        text: `heads`, `resid_post`, `head.3.*`, ...
        n_layers: L of the encoder.
        n_heads: H.
        decoder: what a decoder of image tokens reads.

    Raises:
        UsageError: if there is no such site, or one that is named lies after the tokens that are read.
    """
    source, found = decoder.tokens, dict[Site, None]()
    if source is None:
        return parse_sites(text, n_layers, n_heads)
    for part in filter(None, (part.strip() for part in text.split(","))):
        sites = parse_sites(part, n_layers, n_heads)
        try:
            sites = parse_sites(part, source.last_layer(n_layers) + 1, n_heads)
        except UsageError:  # it names a later layer by its number
            for site in sites:
                source.check(site, n_layers, decoder.name)
        found.update(dict.fromkeys(sites))
    return tuple(found) or parse_sites(text, n_layers, n_heads)


def check_direction(direction: Direction, encoder: EncoderSpec, decoder: DecoderSpec) -> None:
    """Makes sure that what a user named can be written on tokens and reaches the decoder.

    Raises:
        UsageError: if it cannot or does not.
    """
    if isinstance(direction, Tensor):
        return
    direction.check(encoder)
    for site in _members(direction):
        if decoder.tokens is not None:
            decoder.tokens.check(site, encoder.n_layers, decoder.name)


@torch.no_grad()
def trace_tokens(
    encoder: Encoder,
    decoder: Decoder,
    inputs: Inputs | Tensor,
    sites: Sequence[Site],
    directions: Mapping[str, Direction] | None = None,
) -> TokenTrace:
    """What sites hold on every token, from forward passes that record a few sites each.

    Args:
        encoder: the encoder of the pair.
        decoder: a decoder of its image tokens.
        inputs: what `encoder.preprocess` gave.
        sites: where to look; a `vector` is the same on every token.
        directions: what stands behind `vector`, `group` and `region` sites, by name.

    Raises:
        ModelError: if the decoder reads no image tokens.
        UsageError: if the model has no such site, or what it holds never reaches the decoder.
    """
    named, (_, source) = directions or {}, source_of(decoder)
    L, native = encoder.spec.n_layers, [site for site in sites if site.kind not in NAMED_KINDS]
    for site in native:
        source.check(site.check(L, encoder.spec.n_heads), L, decoder.spec.name)
    last = Site("resid_post", source.last_layer(L))
    held = dict(_recorded(encoder, inputs, list(dict.fromkeys([last, *native]))))
    read = held[last]
    for site in sites:
        if site.kind in NAMED_KINDS:
            if site.name not in named or direction_site(site.name, named[site.name]) != site:
                raise UsageError(
                    f"no {site.kind} is called {site.name!r}; known: {', '.join(sorted(named)) or 'none'}."
                )
            check_direction(named[site.name], encoder.spec, decoder.spec)
            held[site] = _written(encoder, inputs, named[site.name], read)
    return TokenTrace(read, held)


@dataclass(frozen=True, eq=False)
class TokenDiffusionLens:
    """Shows what a site holds on all tokens, as if the decoder read it there.

    Attributes:
        encoder: the encoder that the trace comes from.
        decoder: a decoder of its image tokens.
    """

    encoder: Encoder
    decoder: Decoder

    name = "diffusion"

    def tokens(self, trace: TokenTrace, sites: Sequence[Site]) -> Float[Tensor, "B N t D"]:
        """The tokens that the decoder reads, `tokens(x)`, in float32.

        Raises:
            UsageError: if a site was not traced.
            ModelError: if the decoder reads no image tokens.
        """
        return read_tokens(self.encoder, self.decoder, trace.stack(sites))

    def conditioning(self, trace: TokenTrace, sites: Sequence[Site]) -> Conditioning:
        """The same as a decoder takes it, (B N, t, D): picture after picture, site after site.

        Raises:
            UsageError: if a site was not traced.
        """
        return Conditioning("image_tokens", self.tokens(trace, sites).flatten(0, 1))


@dataclass(frozen=True, eq=False)
class TokenSteeringLens:
    """Shows what a component adds directly to some or all tokens, with its indirect effects held still.

    Attributes:
        encoder: the encoder that the trace comes from.
        decoder: a decoder of its image tokens.
        strength: how hard to steer.
        area: the tokens that are written to; None for all that the decoder reads.
    """

    encoder: Encoder
    decoder: Decoder
    strength: Strength
    area: Area | None = None

    name = "steering"

    def weights(self) -> Float[Tensor, "T"]:
        """The share w in [0,1] of every token that is written to it; 0 for tokens that the decoder drops.

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

    def residuals(self, trace: TokenTrace, sites: Sequence[Site]) -> Float[Tensor, "B N T D"]:
        """The steered residuals `r + c w h` of all tokens where the decoder reads them, in at least float32.

        Raises:
            UsageError: if a site holds the residual stream, which is not steered, or was not traced; or if there is no
                token that is written to, or none that the decoder reads.
            ModelError: if the decoder reads no image tokens.
        """
        read, write, factors = self._steered(trace, sites)
        return read + factors[..., None, None] * write

    def tokens(self, trace: TokenTrace, sites: Sequence[Site]) -> Float[Tensor, "B N t D"]:
        """The tokens that the decoder reads of the steered residuals, in float32.

        Raises:
            UsageError: as `residuals`.
        """
        return read_tokens(self.encoder, self.decoder, self.residuals(trace, sites))

    def conditioning(self, trace: TokenTrace, sites: Sequence[Site]) -> Conditioning:
        """The same as a decoder takes it, (B N, t, D): picture after picture, site after site.

        Raises:
            UsageError: as `residuals`.
        """
        return Conditioning("image_tokens", self.tokens(trace, sites).flatten(0, 1))

    def relative_strength(self, trace: TokenTrace, sites: Sequence[Site]) -> Float[Tensor, "B N"]:
        """The `rho` that this strength amounts to at each site, over the tokens that are written to.

        Raises:
            UsageError: as `residuals`.
        """
        read, write, factors = self._steered(trace, sites)
        centred, weights = self._centred(), self.weights().to(read)[:, None]
        return factors * visible_norm(write, centred=centred) / visible_norm(weights * read, centred=centred)

    def controls(
        self, trace: TokenTrace, sites: Sequence[Site], directions: Float[Tensor, "N T D"]
    ) -> Float[Tensor, "B N T D"]:
        """Residuals steered along other directions, on each token exactly as hard as by the site, in at least float32.

        Args:
            trace: what the sites hold.
            sites: the sites that these are the controls of.
            directions: for each site, a direction for every token; only their directions count.

        Raises:
            UsageError: as `residuals`.
        """
        read, write, factors = self._steered(trace, sites)
        centred = self._centred()
        along = directions.to(read)[None]
        sizes = visible_norm(write[..., None, :], centred=centred), visible_norm(along[..., None, :], centred=centred)
        scaled = along * (sizes[0] / sizes[1].where(sizes[1] > 0, 1))[..., None]
        return read + factors[..., None, None] * scaled

    def _steered(self, trace: TokenTrace, sites: Sequence[Site]) -> tuple[Tensor, Tensor, Tensor]:
        for site in sites:
            if not site.is_write:
                raise UsageError(
                    f"{site} holds the residual stream, which the Diffusion Lens shows; the Steering Lens takes what "
                    "is added to it: heads, attn_out.N, mlp_out.N or a direction."
                )
        read, held = precise(trace.read)[:, None], precise(trace.stack(sites))
        weights = self.weights().to(read)[:, None]
        write = weights * held
        return read, write, self.strength.coefficient(weights * read, write, centred=self._centred())

    def _centred(self) -> bool:
        return source_of(self.decoder)[1].normed and self.encoder.spec.centred


@torch.no_grad()
def read_tokens(encoder: Encoder, decoder: Decoder, residuals: Float[Tensor, "B N T D"]) -> Float[Tensor, "B N t D"]:
    """What a decoder reads of many residuals, in float32."""
    reader, _ = source_of(decoder)
    return reader.tokens(residuals.flatten(0, 1).to(encoder.dtype)).float().unflatten(0, residuals.shape[:2])


@dataclass(frozen=True)
class Token:
    """One token by its number; the class token and registers, where there are any, come first."""

    number: int

    def __str__(self) -> str:
        return f"token.{self.number}"

    def weights(self, spec: EncoderSpec) -> Float[Tensor, "T"]:
        """1 for that token, 0 elsewhere.

        Raises:
            UsageError: if there is no token of that number.
        """
        if not 0 <= self.number < spec.n_tokens:
            raise UsageError(f"there is no token {self.number}: {spec.name} has tokens 0 to {spec.n_tokens - 1}.")
        return torch.nn.functional.one_hot(torch.tensor(self.number), spec.n_tokens).float()


def parse_tokens(text: str) -> Area | None:
    """Reads the tokens to write to: `all` (None), `17` for one, or an area as `parse_area` takes it (`8,8,40,40`).

    Raises:
        UsageError: if the text is none of these.
        PictureError: if it names a file that is no picture.
    """
    text = text.strip()
    if text == "all":
        return None
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return Token(int(text))
    try:
        return parse_area(text)
    except UsageError:
        raise UsageError(
            f"{text!r} names no tokens to write to: write all, the number of one token, left,top,right,bottom in "
            "pixels, patches=ROWS,COLUMNS such as patches=2-4,0-3, cls, a mask picture's file name, or outside= before "
            "one of these."
        ) from None


def _recorded(encoder: Encoder, inputs: Inputs | Tensor, sites: Sequence[Site]) -> Iterator[tuple[Site, Tensor]]:
    for start in range(0, len(sites), _RECORDED):
        yield from encoder.record(inputs, sites[start : start + _RECORDED]).items()


def _written(encoder: Encoder, inputs: Inputs | Tensor, direction: Direction, like: Tensor) -> Float[Tensor, "B T D"]:
    if isinstance(direction, Tensor):
        if direction.shape != like.shape[-1:]:
            raise UsageError(
                f"a direction has shape {tuple(direction.shape)}; this encoder's width is {like.shape[-1]}."
            )
        return direction.to(like).expand_as(like)
    if isinstance(direction, RegionPart):
        return _taken(encoder, inputs, direction).to(like)
    total = torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32))
    for _, write in _recorded(encoder, inputs, _members(direction)):
        total += write
    return total.to(like)


def _taken(encoder: Encoder, inputs: Inputs | Tensor, part: RegionPart) -> Float[Tensor, "B T D"]:
    """What heads took from an area, on every token that they wrote to."""
    if not isinstance(encoder, NativeEncoder):
        raise UsageError(f"{encoder.spec.name} does not show its attention, so no head can be split by what it reads.")
    weights, layers = part.area.weights(encoder.spec), encoder.layers()
    with EXCLUSIVE, encoder.recording_attention(range(encoder.spec.n_tokens)) as recorded:
        encoder.embed(inputs)
    writes: list[Tensor] = []
    for site in part.heads:
        pattern, values = (precise(tensor[:, site.head]) for tensor in recorded[site.layer])
        read = (pattern * weights.to(pattern)) @ values
        writes.append(read @ precise(layers[site.layer].head_weights()[site.head]))
    return torch.stack(writes).sum(dim=0)


def _members(direction: Direction) -> tuple[Site, ...]:
    if isinstance(direction, Group):
        return direction.members
    if isinstance(direction, RegionPart):
        return direction.heads
    raise UsageError(f"a {type(direction).__name__} cannot be written on image tokens; name heads, groups or regions.")
