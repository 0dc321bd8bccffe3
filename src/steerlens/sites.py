"""Sites: the places in a Vision Transformer that can be read, steered and intervened on.

A site has one text form, `kind.layer` or `head.layer.head` (`resid_post.12`, `attn_out.12`, `mlp_out.12`,
`head.36.4`); a head may also be written as in the paper, `L36H4`. A neuron is `neuron.layer.unit`, a feature of a
sparse autoencoder `feature.name.index`. Layers, heads, neurons and features are counted from 0. Names of other
libraries, such as `blocks.8.hook_resid_post`, are read too (`steerlens.site_names`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from steerlens.errors import UsageError
from steerlens.limits import over_limit
from steerlens.site_names import native_place

SiteKind = Literal[
    "embed",
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
    "head",
    "vector",
    "group",
    "region",
    "neuron",
    "feature",
    "error",
    "bias",
]

NAMED_KINDS: tuple[SiteKind, ...] = ("vector", "group", "region")
"""Kinds that a user names: a direction, a group of components, the part of heads' writes read from a region."""

UNIT_KINDS: tuple[SiteKind, ...] = ("neuron", "feature")
"""Kinds that are one unit of many: a unit of an MLP's hidden layer, a feature of a sparse autoencoder."""

SAE_KINDS: tuple[SiteKind, ...] = ("feature", "error", "bias")
"""Kinds that are parts of a sparse autoencoder: a feature, what it does not explain, its bias."""

WRITE_KINDS: tuple[SiteKind, ...] = ("attn_out", "mlp_out", "head", *NAMED_KINDS, "neuron", *SAE_KINDS)
"""Kinds that add to the residual stream and can therefore be steered."""

_REMAINDERS: tuple[SiteKind, ...] = ("error", "bias")

# At most nine digits: `int` refuses strings of thousands of digits.
_NUMBER = re.compile(r"\d{1,9}")
_PAPER_HEAD = re.compile(r"L(\d{1,9})H(\d{1,9})", re.IGNORECASE)
_NAME = re.compile(r"[\w.-]+")
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


@dataclass(frozen=True, order=True)
class Site:
    """A place in the model: a point of the residual stream, the output of a submodule, or a user's named component.

    Attributes:
        kind: kind of value at the site.
        layer: layer index from 0; -1 for `embed`, named components and parts of autoencoders, which name no layer.
        head: head index from 0 for `head`, else -1.
        name: name of a `vector`, `group` or `region`, or of the sparse autoencoder of a `feature`, an `error` or a
            `bias`, else empty.
        index: index from 0 of a `neuron` in its layer or of a `feature` in its autoencoder, else -1.
    """

    kind: SiteKind
    layer: int = -1
    head: int = -1
    name: str = ""
    index: int = -1

    def __post_init__(self) -> None:
        if self.kind not in get_args(SiteKind):
            raise UsageError(f"unknown kind of site {self.kind!r}; known are {', '.join(get_args(SiteKind))}.")
        has_layer = self.kind not in ("embed", *NAMED_KINDS, *SAE_KINDS)
        if has_layer != (self.layer >= 0) or (self.kind == "head") != (self.head >= 0):
            numbers = "a layer and a head" if self.kind == "head" else "a layer" if has_layer else "no layer"
            raise UsageError(
                f"a {self.kind} site takes {numbers}, counted from 0; got layer {self.layer}, head {self.head}."
            )
        if (self.kind in UNIT_KINDS) != (self.index >= 0):
            raise UsageError("a neuron or feature site, and no other, carries an index, counted from 0.")
        if (self.kind in (*NAMED_KINDS, *SAE_KINDS)) != bool(self.name):
            raise UsageError(
                "a vector, group or region site, a part of a sparse autoencoder, and no other site, carries a name."
            )
        if self.name and not _NAME.fullmatch(self.name):
            what = "sparse autoencoder" if self.kind in SAE_KINDS else "direction, group or region"
            raise UsageError(f"{self.name!r} cannot name a {what}: use letters, digits, '.', '_' and '-'.")

    def __str__(self) -> str:
        if self.kind == "embed":
            return "embed"
        if self.kind in (*NAMED_KINDS, *_REMAINDERS):
            return f"{self.kind}.{self.name}"
        if self.kind == "head":
            return f"head.{self.layer}.{self.head}"
        if self.kind == "neuron":
            return f"neuron.{self.layer}.{self.index}"
        if self.kind == "feature":
            return f"feature.{self.name}.{self.index}"
        return f"{self.kind}.{self.layer}"

    @property
    def label(self) -> str:
        """Short name for pictures.

        The paper's `L36H4` for a head, `L36N7` for a neuron, `NAME 7` for a feature, `NAME error` for what an
        autoencoder does not explain, the name of a group or region, or the text form.
        """
        if self.kind in ("group", "region"):
            return self.name
        if self.kind == "feature":
            return f"{self.name} {self.index}"
        if self.kind in _REMAINDERS:
            return f"{self.name} {self.kind}"
        if self.kind == "neuron":
            return f"L{self.layer}N{self.index}"
        return f"L{self.layer}H{self.head}" if self.kind == "head" else str(self)

    @property
    def is_write(self) -> bool:
        """True if the site adds to the residual stream (heads, attention, MLPs, neurons, features and named ones)."""
        return self.kind in WRITE_KINDS

    @classmethod
    def parse(cls, text: str) -> "Site":
        """Reads one site from its text form, the paper's form of a head, or another library's name of the place.

        Raises:
            UsageError: if the text names no site.
        """
        text = text.strip()
        if match := _PAPER_HEAD.fullmatch(text):
            return cls("head", int(match[1]), int(match[2]))
        kind, _, rest = text.partition(".")
        for named in (*NAMED_KINDS, *_REMAINDERS):
            if kind == named and rest:
                return cls(named, name=rest)
        if text == "embed":
            return cls("embed")
        if kind == "feature":
            name, _, index = rest.rpartition(".")
            if name and _NUMBER.fullmatch(index):
                return cls("feature", name=name, index=int(index))
        numbers = rest.split(".") if rest else []
        if kind == "neuron" and len(numbers) == 2 and all(map(_NUMBER.fullmatch, numbers)):
            return cls("neuron", int(numbers[0]), index=int(numbers[1]))
        if place := native_place(text):
            return cls(place[0], place[1])  # type: ignore[arg-type]
        expected = 2 if kind == "head" else 1
        native = kind in get_args(SiteKind) and kind not in UNIT_KINDS
        if native and len(numbers) == expected and all(map(_NUMBER.fullmatch, numbers)):
            return cls(kind, *(int(number) for number in numbers))  # type: ignore[arg-type]
        raise UsageError(
            f"{text!r} is not a site. Write resid_pre.N, resid_mid.N, resid_post.N, attn_out.N, mlp_out.N, head.N.H "
            "or LNHM for a head, neuron.N.I or feature.NAME.I, with layers, heads, neurons and features counted from 0."
        )

    def check(self, n_layers: int, n_heads: int) -> "Site":
        """Returns the site itself if a model of this many layers and heads has it.

        Raises:
            UsageError: if the layer or the head is out of range.
        """
        if self.layer >= n_layers:
            raise UsageError(f"{self}: the model has {n_layers} layers, 0 to {n_layers - 1}.")
        if self.head >= n_heads:
            raise UsageError(f"{self}: the model has heads 0 to {n_heads - 1} in each layer.")
        return self


SiteLike = Site | str
"""A site, or its text form: `resid_post.12`, `L36H4`."""

SitesLike = Site | str | Sequence[SiteLike]
"""A site, several, or a text that `parse_sites` reads: `head.8-11.*, mlp_out.3`."""


def as_site(site: SiteLike) -> Site:
    """Returns a site, parsed if it is a text.

    Raises:
        UsageError: if the text names no site, or it is neither.
    """
    if isinstance(site, Site):
        return site
    if isinstance(site, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        return Site.parse(site)
    raise UsageError(f"a site is a Site or its text form, such as 'L3H4', not a {type(site).__name__}.")


def as_sites(sites: SitesLike, n_layers: int, n_heads: int) -> tuple[Site, ...]:
    """Returns sites, parsed where they are texts.

    Args:
        sites: a site, several, or a text with patterns.
        n_layers: L of the encoder, for patterns.
        n_heads: H of the encoder, for patterns.

    Raises:
        UsageError: if a text names no site, or there is something else.
    """
    if isinstance(sites, str):
        return parse_sites(sites, n_layers, n_heads)
    return (sites,) if isinstance(sites, Site) else tuple(as_site(site) for site in sites)


def all_heads(n_layers: int, n_heads: int) -> tuple[Site, ...]:
    """Returns every head, layer by layer."""
    return tuple(Site("head", layer, head) for layer in range(n_layers) for head in range(n_heads))


def layer_sites(kind: SiteKind, n_layers: int) -> tuple[Site, ...]:
    """Returns the sites of one kind, one per layer."""
    return tuple(Site(kind, layer) for layer in range(n_layers))


def parse_sites(text: str, n_layers: int, n_heads: int) -> tuple[Site, ...]:
    """Reads a comma-separated list of sites and patterns, in order and without repeats.

    A pattern is a group (`heads`, `all`), a kind alone (`resid_post`: every layer), or a site whose numbers may be `*`
    or a range `8-11` (`head.8-11.*`, `mlp_out.3-5`). Neurons and features take numbers and ranges
    (`neuron.3.0-99`, `feature.clip.7-9`), not `*`: there are too many.

    Raises:
        UsageError: if a part names no site, or a site that the model does not have.
    """
    sites: dict[Site, None] = {}
    for part in (part.strip() for part in text.split(",")):
        if part:
            sites.update(dict.fromkeys(_expand(part, n_layers, n_heads)))
    if not sites:
        raise UsageError("no site was named; try --sites heads, --sites resid_post or --sites L3H4.")
    return tuple(sites)


def _expand(part: str, n_layers: int, n_heads: int) -> tuple[Site, ...]:
    if part == "heads":
        return all_heads(n_layers, n_heads)
    if part == "all":
        kinds: tuple[SiteKind, ...] = ("resid_post", "attn_out", "mlp_out", "head")
        return tuple(site for kind in kinds for site in _expand(kind, n_layers, n_heads))
    kind, dot, rest = part.partition(".")
    if kind in UNIT_KINDS:
        return _expand_units(part, n_layers, n_heads)
    if kind in ("embed", *NAMED_KINDS, *_REMAINDERS) or _PAPER_HEAD.fullmatch(part) or kind not in get_args(SiteKind):
        return (Site.parse(part).check(n_layers, n_heads),)
    fields = rest.split(".") if dot else ["*"]
    limits = (n_layers, n_heads) if kind == "head" else (n_layers,)
    if kind == "head" and len(fields) == 1:
        fields.append("*")
    if len(fields) != len(limits):
        return (Site.parse(part),)
    ranges = [_numbers(part, field, limit) for field, limit in zip(fields, limits, strict=True)]
    if kind == "head":
        return tuple(Site("head", layer, head).check(n_layers, n_heads) for layer in ranges[0] for head in ranges[1])
    return tuple(Site(kind, layer).check(n_layers, n_heads) for layer in ranges[0])  # type: ignore[arg-type]


def _expand_units(part: str, n_layers: int, n_heads: int) -> tuple[Site, ...]:
    """Expands ranges of neurons or features, whose number no encoder limits here."""
    before, _, units = part.rpartition(".")
    if not _RANGE.fullmatch(units):
        return (Site.parse(part).check(n_layers, n_heads),)
    # Each text goes through `parse`, which reports what is wrong with the layer or the name.
    if words := over_limit("units", len(_numbers(part, units, 0))):
        raise UsageError(f"{part} names {words}.")
    return tuple(Site.parse(f"{before}.{unit}").check(n_layers, n_heads) for unit in _numbers(part, units, 0))


def _numbers(part: str, field: str, limit: int) -> range:
    if field == "*":
        return range(limit)
    match = _RANGE.fullmatch(field)
    if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
        raise UsageError(f"{part!r}: {field!r} is neither a number, a range like 8-11, nor *.")
    return range(int(match[1]), int(match[2] or match[1]) + 1)
