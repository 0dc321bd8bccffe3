"""Work of a study or a profile, counted before anything is computed: pictures, forward passes, decoded pictures.

Forward passes are counted as whole passes of the encoder over one picture. A pass that begins at layer n of L counts as
(L - n) / L; a backward pass counts as two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steerlens.decoders import DecodeOptions
from steerlens.encoders import EncoderSpec
from steerlens.studies.shared.ablation import Ablation
from steerlens.studies.shared.wording import HEADS

REFERENCE_BATCH = 32
"""Reference pictures of one batch."""

_PROOF_ROWS = 10
"""Rows of the last block in which a recorded pass proves its shortcuts: two at each of five places."""


@dataclass(frozen=True)
class Work:
    """Work of a whole command; a resumed command has less left to do.

    Attributes:
        pictures: pictures that are studied.
        references: further pictures, over which means are taken or with which others are compared.
        heads: components that are studied in each picture: heads, features or neurons.
        encoder_passes: forward passes of the encoder on input pictures; not those that embed decoded pictures again.
        decoded: pictures to decode, by decoding options; at most so many, if settings are chosen on the way.
        judged: whether an outside judge embeds the decoded pictures too.
        components: the components in a word.
    """

    pictures: int
    references: int
    heads: int
    encoder_passes: float
    decoded: Mapping[DecodeOptions, int]
    judged: bool = False
    components: str = HEADS

    @property
    def n_decoded(self) -> int:
        """All pictures to decode."""
        return sum(self.decoded.values())


def n_heads(spec: EncoderSpec) -> int:
    """Number of all heads."""
    return spec.n_layers * spec.n_heads


def single_passes(spec: EncoderSpec, components: int | None = None) -> float:
    """Passes that change one component each, beginning at its layer.

    Args:
        spec: spec of the encoder.
        components: number of components, spread evenly over the layers; None for all heads.
    """
    return (n_heads(spec) if components is None else components) * (spec.n_layers + 1) / (2 * spec.n_layers)


def recorded_passes(spec: EncoderSpec, pictures: int = 1, batches: int = 1) -> float:
    """Clean passes that are recorded, with the last block once more and the rows that prove the shortcuts.

    Args:
        spec: spec of the encoder.
        pictures: number of pictures.
        batches: number of batches; each is proved with rows of one picture.
    """
    return pictures * (1 + 1 / spec.n_layers) + batches * _PROOF_ROWS / spec.n_layers


def reference_passes(spec: EncoderSpec, references: int) -> float:
    """Passes that prepare a bench: a trace, a recorded pass, and every block once more for the means."""
    return 2 * references + recorded_passes(spec, references, -(-references // REFERENCE_BATCH))


def effect_passes(
    spec: EncoderSpec, ablations: Sequence[Ablation], targets: float, components: int | None = None
) -> float:
    """Passes that measure the effects of ablating every component in one picture; see `measure_effects`.

    Args:
        spec: spec of the encoder.
        ablations: ablations to measure.
        targets: number of targets of signed effects.
        components: number of components; None for all heads.
    """
    block = 1 / spec.n_layers
    passes = 2 * recorded_passes(spec) + 1  # and a trace
    for ablation in ablations:
        writes = 2 if ablation == "resample" else 1
        passes += writes + block + single_passes(spec, components) + targets * (3 + writes)
    return passes
