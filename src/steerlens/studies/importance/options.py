"""Options of the importance study."""

from dataclasses import dataclass

from steerlens.decoders import DecodeOptions
from steerlens.errors import UsageError
from steerlens.saes import SparseAutoencoder
from steerlens.studies.shared.ablation import ABLATIONS, Ablation
from steerlens.studies.shared.candidates import diffusion_candidates, steering_candidates
from steerlens.studies.shared.settings import LensSetting


@dataclass(frozen=True)
class ImportanceOptions:
    """Options of the importance study.

    Attributes:
        decode: decoding options.
        seeds: seeds of the decoder on the concepts to report on, the same for all heads; the selection uses the first.
        ablations: ablations to measure.
        steering: candidates of the Steering Lens.
        diffusion: candidates of the Diffusion Lens, as many.
        batch: rows of a forward pass.
        given: a text that serves as a further target of signed effects for all pictures; empty for none.
        decoding: False to score requested embeddings alone, without a decoder.
        extras: True to decode one factor for all heads, centred writes and a neutral base even if they were not chosen;
            their embeddings are always stored.
        sae: the autoencoder whose features are studied; None for heads.
        features: number of its features.
        neurons: number of neurons that are studied in place of heads; 0 for none.
    """

    decode: DecodeOptions
    seeds: tuple[int, ...] = (0, 1)
    ablations: tuple[Ablation, ...] = ABLATIONS
    steering: tuple[LensSetting, ...] = steering_candidates()
    diffusion: tuple[LensSetting, ...] = diffusion_candidates()
    batch: int = 64
    given: str = ""
    extras: bool = True
    decoding: bool = True

    sae: SparseAutoencoder | None = None
    features: int = 48
    neurons: int = 0

    def __post_init__(self) -> None:
        if self.decoding and len(set(self.seeds)) < 2:
            raise UsageError("the study needs at least 2 seeds, to measure the reliability of its scores.")
        if len(set(self.steering)) != len(set(self.diffusion)):
            raise UsageError("both lenses need the same number of settings to choose from.")
