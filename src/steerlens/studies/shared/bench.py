"""Bench of a study: a pair ready for interventions, with means over reference pictures and the outside judge."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image
from torch import Tensor

from steerlens.decoders import DecodeOptions
from steerlens.encoders import Encoder, NativeEncoder
from steerlens.errors import UsageError
from steerlens.sites import Site, all_heads
from steerlens.studies.shared.ablation import mean_writes
from steerlens.studies.shared.planned import PlannedEncoder
from steerlens.studies.shared.settings import Reference, reference_of
from steerlens.zoo import Pair

_REFERENCE_BATCH = 32


@dataclass(frozen=True, eq=False)
class Bench:
    """Models of a study, with means over reference pictures.

    Attributes:
        pair: encoder and decoder.
        encoder: the pair's encoder, whose blocks can be hooked.
        sites: all its heads.
        means: mean writes of the heads on every token, for mean ablation.
        reference: means at the readout tokens, for centred settings.
        judge: an outside encoder that embeds decoded pictures too, or None.
    """

    pair: Pair
    encoder: NativeEncoder
    sites: tuple[Site, ...]
    means: dict[Site, Tensor]
    reference: Reference
    judge: Encoder | None = None


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


def make_bench(pair: Pair, images: Sequence[Image.Image], judge: Encoder | None = None) -> Bench:
    """Prepares a pair for interventions and computes means over reference pictures.

    Raises:
        UsageError: if the decoder reads no embeddings, the encoder's blocks cannot be hooked, or there is no reference
            picture.
    """
    require_blocks(pair, images)
    encoder = pair.encoder
    if not isinstance(encoder, NativeEncoder):
        raise UsageError(f"{encoder.spec.name} is not loaded.")
    sites = all_heads(encoder.spec.n_layers, encoder.spec.n_heads)
    starts = range(0, len(images), _REFERENCE_BATCH)
    batches = [encoder.preprocess(images[start : start + _REFERENCE_BATCH]) for start in starts]
    reference = reference_of(encoder, [encoder.trace(batch) for batch in batches], sites)
    return Bench(pair, encoder, sites, mean_writes(encoder, batches, sites), reference, judge)


def with_steps(options: DecodeOptions, steps: int | None, guidance: float | None) -> DecodeOptions:
    """Copies decoding options with the given number of steps and guidance scale; None keeps the old value."""
    given = {name: value for name, value in (("steps", steps), ("guidance", guidance)) if value is not None}
    return replace(options, **given)
