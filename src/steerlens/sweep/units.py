"""Requests for units: which features of sparse autoencoders, and which neurons, the sites of a sweep name.

    features            the strongest features of every autoencoder
    feature.NAME        the strongest features of one
    feature.NAME.7      feature 7 of it; feature.NAME.3-9 several
    neurons             the strongest neurons of all layers
    neuron.5            the strongest neurons of layer 5; neuron.3-5 of layers 3 to 5
    neuron.5.7          neuron 7 of layer 5

Which units are strongest differs from picture to picture (`steerlens.sweep.survey`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from steerlens.encoders import Encoder, NativeEncoder
from steerlens.errors import UsageError
from steerlens.saes import SparseAutoencoder
from steerlens.sites import UNIT_KINDS, Site, parse_sites
from steerlens.sweep.options import DEFAULT_SITES, SAE_SITES, STRONGEST, LookOptions

_LAYERS = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")


@dataclass(frozen=True)
class UnitRequest:
    """Units that a text of sites names, and the rest of the text.

    Attributes:
        fixed: the text without units: sites that every picture has.
        named: features and neurons named one by one.
        strongest_of: autoencoders whose strongest features are shown.
        layers: layers whose strongest neurons are shown.
    """

    fixed: str
    named: tuple[Site, ...] = ()
    strongest_of: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()

    @property
    def is_empty(self) -> bool:
        """True if no unit is named."""
        return not (self.named or self.strongest_of or self.layers)

    @property
    def has_neurons(self) -> bool:
        """True if any neuron is named."""
        return bool(self.layers) or any(site.kind == "neuron" for site in self.named)

    @property
    def autoencoders(self) -> tuple[str, ...]:
        """Names of the autoencoders any part of which is shown."""
        named = [site.name for site in self.named if site.kind == "feature"]
        return tuple(dict.fromkeys([*self.strongest_of, *named]))

    def placeholders(self, strongest: int) -> tuple[Site, ...]:
        """As many units as a picture can have, for estimates: which they are is not known before it is traced."""
        features = [Site("feature", name=name, index=i) for name in self.strongest_of for i in range(strongest)]
        neurons = [Site("neuron", self.layers[0], index=i) for i in range(strongest)] if self.layers else []
        return tuple(dict.fromkeys([*features, *neurons, *self.named, *self.remainders()]))

    def remainders(self) -> tuple[Site, ...]:
        """Error and bias of each autoencoder, which are always shown beside its features."""
        return tuple(Site(kind, name=name) for name in self.autoencoders for kind in ("error", "bias"))


def unit_request(
    options: LookOptions, saes: Mapping[str, SparseAutoencoder], n_layers: int, n_heads: int
) -> UnitRequest:
    """Reads the units among the sites of a sweep.

    Args:
        options: options of the sweep.
        saes: the autoencoders by name.
        n_layers: L.
        n_heads: H.

    Raises:
        UsageError: if there is no such autoencoder, feature or layer, or an autoencoder is given and not looked at.
    """
    text = SAE_SITES if saes and options.sites == DEFAULT_SITES else options.sites
    fixed: list[str] = []
    named: dict[Site, None] = {}
    strongest_of: dict[str, None] = {}
    layers: dict[int, None] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, _, rest = part.partition(".")
        if part == "features":
            if not saes:
                raise UsageError("features are those of a sparse autoencoder, and none was given: --sae FOLDER.")
            strongest_of |= dict.fromkeys(saes)
        elif part == "neurons":
            layers |= dict.fromkeys(range(n_layers))
        elif kind == "feature" and rest in saes:
            strongest_of[rest] = None
        elif kind == "neuron" and (match := _LAYERS.fullmatch(rest)):
            layers |= dict.fromkeys(_layers(part, match, n_layers))
        elif kind in UNIT_KINDS:
            named |= dict.fromkeys(parse_sites(part, n_layers, n_heads))
        else:
            fixed.append(part)
    request = UnitRequest(",".join(fixed), tuple(named), tuple(strongest_of), tuple(layers))
    for site in named:
        if site.kind == "feature":
            _check_feature(site, saes)
    shown = {*request.autoencoders, *_in_fixed(fixed)}
    if unused := [name for name in saes if name not in shown]:
        raise UsageError(
            f"the sparse autoencoder {unused[0]} has no effect, because the sites {options.sites!r} name no feature "
            f"of it: add features, feature.{unused[0]} or feature.{unused[0]}.NUMBER, or leave it out."
        )
    return request


def refuse_more_units(
    options: LookOptions, request: UnitRequest, saes: Mapping[str, SparseAutoencoder], encoder: Encoder
) -> None:
    """Checks that there are as many features and neurons as are to be shown; the default takes all if there are fewer.

    Raises:
        UsageError: if there are fewer.
    """
    if options.strongest == STRONGEST:
        return
    available = [(saes[name].n_features, f"features in {name}") for name in request.strongest_of]
    if request.layers and isinstance(encoder, NativeEncoder):
        layers = encoder.layers()
        count = sum(layers[layer].neurons().n_neurons for layer in request.layers)
        where = f"layer {request.layers[0]}" if len(request.layers) == 1 else f"{len(request.layers)} layers"
        available.append((count, f"neurons in {where}"))
    for count, what in available:
        if options.strongest > count:
            raise UsageError(f"strongest {options.strongest}: there are only {count} {what}.")


def _check_feature(site: Site, saes: Mapping[str, SparseAutoencoder]) -> None:
    if site.name not in saes:
        known = f"known: {', '.join(saes)}." if saes else "none was given (--sae FOLDER)."
        raise UsageError(f"{site}: no sparse autoencoder is called {site.name!r}; {known}")
    saes[site.name].check_site(site)


def _in_fixed(parts: Sequence[str]) -> Iterator[str]:
    """Names of autoencoders whose error or bias is named."""
    for part in parts:
        kind, _, name = part.partition(".")
        if kind in ("error", "bias"):
            yield name


def _layers(part: str, match: "re.Match[str]", n_layers: int) -> range:
    first, last = int(match[1]), int(match[2] or match[1])
    if not first <= last < n_layers:
        raise UsageError(f"{part}: the model has layers 0 to {n_layers - 1}; write neuron.LAYER or neuron.FIRST-LAST.")
    return range(first, last + 1)
