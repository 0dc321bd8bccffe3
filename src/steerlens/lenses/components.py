"""Named components: directions, groups, regions and parts of autoencoders that can be steered like sites of the model.

    direction    a vector of the residual stream, the same for every picture (a probe, a mean difference)
    group        several heads, attention outputs and MLPs, steered together with one strength
    region       the part of heads' writes that was read from some tokens (`steerlens.lenses.regions`)
    feature      a feature of a sparse autoencoder, as active as it is on a picture (`steerlens.lenses.sae_parts`)

A group keeps the closed form of the Steering Lens: with every submodule frozen at its clean output, plus its own
steering if it is a member, the writes only add, so the write of the group is the sum over its members:

    DSL(G, s) = decode( P( LN( r_L + (s - 1) Σ_{m in G} h_m ) ) )
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from steerlens.encoders import EncoderSpec
from steerlens.errors import ModelError, UsageError
from steerlens.lenses.regions import parse_regions
from steerlens.lenses.strength import Strength
from steerlens.limits import read_file
from steerlens.saes import SparseAutoencoder
from steerlens.sites import NAMED_KINDS, Site, parse_sites
from steerlens.storage import check_sum
from steerlens.trace import Trace

_SHORTEST, _LONGEST = 1e-15, 1e15
"""Bounds on the norm of a direction: norms are computed in single precision."""

_MEMBER_KINDS = ("head", "attn_out", "mlp_out")


class Component(Protocol):
    """A named component whose write differs between pictures: several sites, or a part of a site."""

    @property
    def kind(self) -> Literal["group", "region"]:
        """The kind of its named site."""
        ...

    @property
    def identity(self) -> str:
        """A text that is equal for equal components of one encoder."""
        ...

    def check(self, spec: EncoderSpec) -> None:
        """Checks that an encoder has the named parts.

        Raises:
            UsageError: if it does not.
        """
        ...

    def write(self, spec: EncoderSpec, trace: Trace) -> Float[Tensor, "B R D"]:
        """Computes its write into the final residual of the readout tokens.

        Raises:
            UsageError: if the encoder has no such part, or the trace lacks the tensors for it.
        """
        ...


Direction: TypeAlias = Float[Tensor, "D"] | Component | SparseAutoencoder
"""What a name in a site stands for: a direction, the same for every picture, a component, or a sparse autoencoder."""


def check_vector(name: str, direction: Any, width: int, *, centred: bool) -> Float[Tensor, "D"]:
    """Returns a direction of the residual stream, after checking that it is one.

    Args:
        name: its name in messages.
        direction: a tensor (D,).
        width: D of the encoder.
        centred: whether a norm follows that removes the mean over width.

    Raises:
        UsageError: if it is no tensor in floating point, has another shape, points nowhere, or the norm removes it.
    """
    if not isinstance(direction, Tensor) or not direction.is_floating_point():
        kind = direction.dtype if isinstance(direction, Tensor) else type(direction).__name__
        raise UsageError(
            f"direction {name!r} is a {kind}: directions are tensors (width,) in floating point, groups, regions or "
            "sparse autoencoders."
        )
    if direction.shape != (width,):
        raise UsageError(f"direction {name!r} has shape {tuple(direction.shape)}; this encoder's width is {width}.")
    if not bool(direction.isfinite().all()) or not bool(direction.any()):
        raise UsageError(f"direction {name!r} is zero or not finite, and so points nowhere.")
    if not _SHORTEST < (norm := float(direction.double().norm())) < _LONGEST:
        raise UsageError(
            f"direction {name!r} has the norm {norm:g}, whose square leaves single precision; scale it, for example "
            "to unit norm."
        )
    if centred and Strength("rho", 1.0).coefficient(direction[None], direction[None], centred=True) == 0:
        raise UsageError(
            f"direction {name!r} has the same number on every coordinate, which the final norm removes: steering along "
            "it changes nothing."
        )
    return direction


def direction_site(name: str, direction: Float[Tensor, "D"] | Component) -> Site:
    """Returns the named site of a direction or a component.

    Raises:
        UsageError: if it is neither.
    """
    kind = "vector" if isinstance(direction, Tensor) else getattr(direction, "kind", None)
    if kind not in NAMED_KINDS:
        raise UsageError(
            f"{name!r} is a {type(direction).__name__}: directions are tensors (width,), groups, regions or sparse "
            "autoencoders."
        )
    return Site(kind, name=name)


@dataclass(frozen=True, eq=False)
class Group:
    """Several components steered together.

    Attributes:
        members: heads, attention outputs and MLPs, each once.
    """

    members: tuple[Site, ...]

    def __post_init__(self) -> None:
        if not self.members:
            raise UsageError("a group needs at least one member.")
        if len(set(self.members)) < len(self.members):
            raise UsageError("a group holds each of its members once.")
        whole = {site.layer for site in self.members if site.kind == "attn_out"}
        for site in self.members:
            if site.kind not in _MEMBER_KINDS:
                raise UsageError(
                    f"{site} cannot be in a group; its members are heads, attn_out.N and mlp_out.N. Name it among the "
                    "sites to see it by itself."
                )
            if site.kind == "head" and site.layer in whole:
                raise UsageError(f"{site} is a part of attn_out.{site.layer}: in one group it would count twice.")

    @property
    def kind(self) -> Literal["group"]:
        """The kind of its named site."""
        return "group"

    @property
    def identity(self) -> str:
        """A text that is equal for equal groups of one encoder."""
        return ",".join(map(str, self.members))

    def check(self, spec: EncoderSpec) -> None:
        """Checks that an encoder has all members.

        Raises:
            UsageError: if it does not.
        """
        for site in self.members:
            site.check(spec.n_layers, spec.n_heads)

    def write(self, spec: EncoderSpec, trace: Trace) -> Float[Tensor, "B R D"]:
        """Sums the members' writes.

        Raises:
            UsageError: if the encoder has no such member.
        """
        self.check(spec)
        # Layer by layer: the heads of a layer are multiplied out at once; those of all layers would not fit in memory.
        layers = {site.layer: [other for other in self.members if other.layer == site.layer] for site in self.members}
        sums = [trace.stack(sites).float().sum(dim=1) for sites in layers.values()]
        return torch.stack(sums).sum(dim=0)


def parse_groups(texts: Sequence[str], n_layers: int, n_heads: int) -> dict[str, Group]:
    """Reads `NAME=SITES`, with sites and patterns as `parse_sites` takes them: `late=head.6-7.*,mlp_out.7`.

    Raises:
        UsageError: if a text has another form, there is no such site, or two groups have one name.
    """
    groups: dict[str, Group] = {}
    for text in texts:
        name, equals, sites = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise UsageError(f"{text!r} is no group; write NAME=SITES, such as late=head.6-7.*,mlp_out.7.")
        if name in groups:
            raise UsageError(f"two groups are called {name!r}; rename one.")
        Site("group", name=name)  # refuses a name that cannot be one
        groups[name] = Group(parse_sites(sites, n_layers, n_heads))
    return groups


def named_components(
    groups: Sequence[str],
    regions: Sequence[str],
    n_layers: int,
    n_heads: int,
    taken: Iterable[str] = (),
) -> Mapping[str, Component]:
    """Reads groups and regions by name, for the `directions` of lenses.

    Args:
        groups: texts for `parse_groups`.
        regions: texts for `parse_regions`.
        n_layers: L.
        n_heads: H.
        taken: names of directions, which groups and regions must not share.

    Raises:
        UsageError: as the parsers do, and if two components have one name.
    """
    parsed: tuple[Mapping[str, Component], ...] = (
        parse_groups(groups, n_layers, n_heads),
        parse_regions(regions, n_layers, n_heads),
    )
    components: dict[str, Component] = {}
    used = set(taken)
    for named in parsed:
        for name, component in named.items():
            if name in used:
                raise UsageError(f"{name!r} names two of the directions, groups and regions; rename one.")
            used.add(name)
            components[name] = component
    return components


def load_directions(path: Path, width: int | None = None) -> dict[str, Float[Tensor, "D"]]:
    """Loads directions of the residual stream from a safetensors file: one direction per tensor, named by its key.

    A tensor (D,) is one direction; (K,D) is K of them, named `key.0` to `key.K-1`.

    Args:
        path: the file.
        width: D of the encoder; None to accept any width.

    Raises:
        UsageError: if there is no such file, a tensor has another width or shape, or two have one name.
        ModelError: if the file is not a safetensors file, or holds values that are not finite.
        StoreError: if a head profile wrote it, and it was damaged since.
    """
    data = read_file(path, "tensors_bytes")
    check_sum(path.parent, path.name, data, "write it again, or restore it from a copy")
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{path} is not a safetensors file ({error}).") from error
    directions: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim not in (1, 2) or not tensor.numel():
            raise UsageError(
                f"{path}: {name} has shape {tuple(tensor.shape)}; a direction is (width,), several (K,width)."
            )
        rows = {name: tensor} if tensor.ndim == 1 else {f"{name}.{index}": row for index, row in enumerate(tensor)}
        for key, row in rows.items():
            if width is not None and row.shape != (width,):
                raise UsageError(f"{path}: {key} has shape {tuple(row.shape)}; this encoder's width is {width}.")
            if not torch.isfinite(row).all() or not row.any():
                raise ModelError(f"{path}: {key} is zero or not finite, and so is no direction.")
            site = Site("vector", name=key.replace("/", "."))
            if site.name in directions:
                raise UsageError(f"{path}: two directions would both be called {site}; rename one.")
            directions[site.name] = row.float()
    if not directions:
        raise UsageError(f"{path} holds no tensor.")
    return directions
