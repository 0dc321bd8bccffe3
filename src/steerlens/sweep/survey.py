"""Surveys: which units are active on each picture and which of them are strongest, before anything is decoded.

A survey traces every picture once and encodes what each autoencoder reads there. So a sweep knows which features to
show of which picture, and how well the autoencoders fit these pictures.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.decoders import fitting
from steerlens.encoders import Encoder, Inputs
from steerlens.errors import UsageError
from steerlens.images import Picture
from steerlens.lenses import Direction, Strength, values_on_tokens
from steerlens.progress import Progress
from steerlens.saes import SparseAutoencoder, decoder_rows, value_at
from steerlens.sites import Site
from steerlens.sweep.effects import unit_effects
from steerlens.sweep.fits import FitMeter, SaeFit
from steerlens.sweep.neurons import CANDIDATES, strongest, write_norms
from steerlens.sweep.options import RankedBy
from steerlens.sweep.units import UnitRequest
from steerlens.trace import Trace


@dataclass(frozen=True)
class UnitSurvey:
    """Units to show of each picture, and how well the autoencoders fit the pictures.

    Attributes:
        own: id of a picture -> its units, strongest first; error and bias of each autoencoder come last.
        fits: autoencoder -> how well it fits the pictures.
        active: autoencoder -> id of a picture -> number of its active features.
    """

    own: Mapping[str, tuple[Site, ...]]
    fits: Mapping[str, SaeFit] = field(default_factory=dict[str, SaeFit])
    active: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])

    def facts(self, saes: Mapping[str, SparseAutoencoder]) -> dict[str, Any]:
        """Facts about the autoencoders for the manifest of a run, as JSON values."""
        return {
            name: {
                "site": str(sae.site),
                "features": sae.n_features,
                "width": sae.width,
                "activation": sae.activation.name,
                "trained_on": sae.trained_on,
                "fit": self.fits[name].to_json(),
                "active": dict(self.active[name]),
            }
            for name, sae in saes.items()
            if name in self.fits
        }


@dataclass(frozen=True, eq=False)
class Surveyor:
    """Settings of a sweep that a survey needs.

    Attributes:
        encoder: the encoder.
        trace: traces the preprocessed inputs of a picture, with neurons if any are requested.
        directions: content of named sites, the autoencoders among them.
        strength: steering strength.
        target: embedding that similarities refer to; None for each input's own.
        request: the units.
        strongest: number of units of each autoencoder, and of neurons.
        rank: what makes a unit strong.
        all_tokens: True to rank by all tokens, for a decoder of image tokens.
    """

    encoder: Encoder
    trace: Callable[[Inputs], Trace]
    directions: Mapping[str, Direction]
    strength: Strength
    target: Float[Tensor, "E"] | None
    request: UnitRequest
    strongest: int
    rank: RankedBy
    all_tokens: bool = False

    def survey(self, pictures: Mapping[str, Picture]) -> Iterator[Progress]:
        """Surveys pictures; the payload of the last event is the `UnitSurvey`.

        Raises:
            UsageError: if an autoencoder does not fit the encoder, or nothing that was named is active on any picture.
            ModelError: if a picture does not fit into memory.
        """
        names = self.request.autoencoders
        meters = {name: FitMeter(self._sae(name)) for name in names}
        own: dict[str, tuple[Site, ...]] = {}
        active: dict[str, dict[str, int]] = {name: {} for name in names}
        for number, (id, picture) in enumerate(pictures.items()):
            yield Progress("surveying", number, len(pictures), "pictures")
            inputs = self.encoder.preprocess([picture.image])
            with fitting(f"surveying the picture {picture.name}"):
                trace, units = self.trace(inputs), list[Site]()
                for name in names:
                    sae = self._sae(name)
                    meters[name].add(self.encoder, trace, inputs)
                    values = values_on_tokens(self.encoder, inputs, sae) if self.all_tokens else value_at(sae, trace)
                    sites, active[name][id] = self._features(sae, values, trace)
                    units += sites
                units += self._neurons(trace, inputs)
            own[id] = (*units, *self.request.remainders())
        survey = UnitSurvey(own, {name: meter.result() for name, meter in meters.items()}, active)
        self._refuse_silence(survey)
        yield Progress("surveying", len(pictures), len(pictures), "pictures", survey)

    def _sae(self, name: str) -> SparseAutoencoder:
        sae = self.directions[name]
        if not isinstance(sae, SparseAutoencoder):
            raise UsageError(f"{name} is no sparse autoencoder.")
        return sae

    def _features(self, sae: SparseAutoencoder, values: Float[Tensor, "1 R d"], trace: Trace) -> tuple[list[Site], int]:
        """The features to show of one picture, and the number of all that are active."""
        rows = values[0].to(sae.W_enc)
        _, _, multiplier = sae.normalisation.affine(rows)
        total = rows.new_zeros(sae.n_features)
        for place, activations in sae.encoded_in_parts(rows):
            total += (activations * multiplier[place]).sum(dim=0)
        indices = total.nonzero()[:, 0]
        named = [site for site in self.request.named if site.name == sae.name and bool(total[site.index])]
        if sae.name not in self.request.strongest_of or not len(indices):
            return named, len(indices)
        if self.rank == "activation":
            scores = total[indices] * decoder_rows(sae, trace, indices).norm(dim=-1)
        else:
            scores = self._scores(trace, [sae.feature(index) for index in indices.tolist()])
        # Stable, so that ties keep the order of the autoencoder on every machine.
        best = scores.cpu().argsort(descending=True, stable=True)[: self.strongest]
        ranked = [sae.feature(int(indices[row])) for row in best.tolist()]
        return list(dict.fromkeys([*ranked, *named])), len(indices)

    def _neurons(self, trace: Trace, inputs: Inputs) -> list[Site]:
        """The neurons to show of one picture."""
        request = self.request
        named = [site for site in request.named if site.kind == "neuron"]
        for site in named:
            trace.neurons.projections[site.layer].check(site)
        if not request.layers:
            return named
        norms = write_norms(self.encoder, trace, inputs, request.layers, all_tokens=self.all_tokens)
        if self.rank == "activation":
            return list(dict.fromkeys([*strongest(norms, self.strongest), *named]))
        sites = strongest(norms, max(self.strongest, CANDIDATES))
        best = self._scores(trace, sites).argsort(descending=True, stable=True)[: self.strongest]
        return list(dict.fromkeys([*(sites[row] for row in best.tolist()), *named]))

    def _scores(self, trace: Trace, sites: Sequence[Site]) -> Float[Tensor, "N"]:
        """What units are ranked by, where that is their effect on the embedding."""
        effects = unit_effects(self.encoder, trace, sites, self.directions, self.strength, self.target)
        return torch.tensor([effect if self.rank == "effect" else cosine for effect, cosine in effects])

    def _refuse_silence(self, survey: UnitSurvey) -> None:
        """Refuses autoencoders none of whose features is active on any picture: their writes are zero."""
        shown = {(site.kind, site.name) for sites in survey.own.values() for site in sites}
        where = "all tokens of the inputs" if self.all_tokens else "the readout tokens of the inputs"
        for name in self.request.autoencoders:
            if ("feature", name) in shown:
                continue
            numbered = [str(site) for site in self.request.named if site.name == name]
            what = f"every feature of {name}" if name in self.request.strongest_of else ", ".join(numbered)
            active = max(survey.active[name].values())
            raise UsageError(
                f"{'' if active else '0 active features: '}{what} is silent on {where}, so there is nothing to show. "
                + self._why_silent(self._sae(name), active)
            )

    def _why_silent(self, sae: SparseAutoencoder, active: int) -> str:
        if active:
            return f"Up to {active} other features of {sae.name} are active on an input: --sites features shows them."
        if sae.trained_on == "patch" and not self.all_tokens:
            return (
                "It was trained on image patches: use a decoder that reads image tokens, or an autoencoder of the "
                "readout token."
            )
        return f"Was it trained on this model, at {sae.site}?"


def surveyed(events: Iterator[Progress], on_progress: Callable[[Progress], object] | None = None) -> UnitSurvey:
    """Runs a survey to its end."""
    survey: UnitSurvey | None = None
    for event in events:
        if on_progress is not None:
            on_progress(event)
        if isinstance(event.payload, UnitSurvey):
            survey = event.payload
    if survey is None:
        raise UsageError("there was no picture to survey.")
    return survey


def saes_of(directions: Mapping[str, Direction]) -> dict[str, SparseAutoencoder]:
    """The sparse autoencoders among named contents."""
    return {name: sae for name, sae in directions.items() if isinstance(sae, SparseAutoencoder)}


def saes_on(directions: Mapping[str, Direction], device: torch.device | str) -> dict[str, Direction]:
    """Named contents with the autoencoders among them on a device."""
    return {
        name: named.to(device) if isinstance(named, SparseAutoencoder) else named for name, named in directions.items()
    }


def with_saes(
    directions: Mapping[str, Direction], saes: Sequence[SparseAutoencoder], encoder: Encoder
) -> dict[str, Direction]:
    """Adds autoencoders to named contents, on the encoder's device.

    Raises:
        UsageError: if two contents have one name.
    """
    united = dict(directions)
    for sae in saes:
        if sae.name in united:
            raise UsageError(
                f"{sae.name!r} names two of the directions, groups, regions and sparse autoencoders; rename one."
            )
        united[sae.name] = sae.to(encoder.device)
    return united
