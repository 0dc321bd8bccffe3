"""Bench of a study: a pair ready for interventions, with means over reference pictures and the outside judge."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image
from torch import Tensor

from steerlens.decoders import DecodeOptions
from steerlens.encoders import Encoder, NativeEncoder
from steerlens.errors import UsageError
from steerlens.saes import SparseAutoencoder
from steerlens.sites import Site
from steerlens.studies.shared.ablation import mean_writes
from steerlens.studies.shared.components import (
    Components,
    check_studied,
    heads_of,
    strongest_features,
    strongest_neurons,
)
from steerlens.studies.shared.planned import PlannedEncoder
from steerlens.studies.shared.remainder import remainder_sites
from steerlens.studies.shared.settings import Reference, reference_of
from steerlens.studies.shared.wording import NEURONS
from steerlens.studies.shared.work import REFERENCE_BATCH
from steerlens.trace import Trace
from steerlens.zoo import Pair


@dataclass(frozen=True, eq=False)
class Bench:
    """Models of a study, with means over reference pictures.

    Attributes:
        pair: encoder and decoder.
        encoder: the pair's encoder, whose blocks can be hooked.
        sites: the components that are studied: all its heads, neurons, or features of an autoencoder.
        means: mean writes of the components, and of error and bias, on every token, for mean ablation.
        reference: means at the readout tokens, for centred settings.
        judge: an outside encoder that embeds decoded pictures too, or None.
        sae: the autoencoder whose features are studied; None for heads.
    """

    pair: Pair
    encoder: NativeEncoder
    sites: tuple[Site, ...]
    means: dict[Site, Tensor]
    reference: Reference
    judge: Encoder | None = None
    sae: SparseAutoencoder | None = None

    @property
    def remainders(self) -> tuple[Site, ...]:
        """Error and bias of the autoencoder, which are ablated besides its features; empty for heads."""
        return remainder_sites(self.sae)

    @property
    def components(self) -> Components:
        """The components that are studied."""
        return Components(self.sites, self.sae)

    def trace(self, image: Image.Image) -> Trace:
        """Traces a picture, with its neurons where they are studied."""
        return self.encoder.trace(self.encoder.preprocess([image]), neurons=self.components.words == NEURONS)


def require_embeddings(pair: Pair) -> None:
    """Checks that a pair's decoder reads image embeddings, which studies decode.

    Raises:
        UsageError: if it reads image tokens.
    """
    if pair.decoder.spec.consumes != "image_embedding":
        raise UsageError(
            f"the decoder of {pair.name} reads image tokens, but studies and profiles steer and decode image "
            "embeddings; take a pair whose decoder reads embeddings (steerlens models lists them)."
        )


def require_blocks(pair: Pair, images: Sequence[Image.Image]) -> None:
    """Checks that a pair can be ablated, and that there are pictures to take means over; an unloaded pair passes.

    Raises:
        UsageError: if the decoder reads no embeddings, the encoder's blocks cannot be hooked, or there is no reference
            picture.
    """
    require_embeddings(pair)
    if not isinstance(pair.encoder, NativeEncoder | PlannedEncoder):
        raise UsageError(
            f"{pair.encoder.spec.name}: this study ablates inside the encoder, but its adapter exposes no blocks."
        )
    if not images:
        raise UsageError("the study needs reference pictures, over which it takes means.")


def make_bench(
    pair: Pair,
    images: Sequence[Image.Image],
    judge: Encoder | None = None,
    sae: SparseAutoencoder | None = None,
    features: int = 0,
    neurons: int = 0,
) -> Bench:
    """Prepares a pair for interventions and computes means over reference pictures.

    Args:
        pair: encoder and decoder.
        images: reference pictures.
        judge: an outside encoder.
        sae: an autoencoder, whose features are studied in place of heads.
        features: number of its features, those that are strongest on the reference pictures.
        neurons: number of neurons, those that are strongest on them, which are studied in place of heads; 0 for none.

    Raises:
        UsageError: if the decoder reads no embeddings, the encoder's blocks cannot be hooked, there is no reference
            picture, or the autoencoder does not fit the encoder.
    """
    require_blocks(pair, images)
    encoder = pair.encoder
    if not isinstance(encoder, NativeEncoder):
        raise UsageError(f"{encoder.spec.name} is not loaded.")
    starts = range(0, len(images), REFERENCE_BATCH)
    batches = [encoder.preprocess(images[start : start + REFERENCE_BATCH]) for start in starts]
    traces = [encoder.trace(batch, neurons=neurons > 0) for batch in batches]
    if neurons:
        components = Components(strongest_neurons(traces, neurons))
    elif sae is None:
        components = heads_of(encoder.spec)
    else:
        check_studied(sae, encoder.spec)
        sae = sae.to(encoder.device)
        components = Components(strongest_features(sae, encoder, traces, features), sae)
    reference = reference_of(encoder, traces, components.sites, components.directions)
    means = mean_writes(encoder, batches, (*components.sites, *remainder_sites(sae)), sae)
    return Bench(pair, encoder, components.sites, means, reference, judge, sae)


def with_steps(options: DecodeOptions, steps: int | None, guidance: float | None) -> DecodeOptions:
    """Copies decoding options with the given number of steps and guidance scale; None keeps the old value."""
    given = {name: value for name, value in (("steps", steps), ("guidance", guidance)) if value is not None}
    return replace(options, **given)
