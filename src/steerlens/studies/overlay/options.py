"""Options of the overlay study."""

from dataclasses import dataclass, field

from steerlens.decoders import DecodeOptions
from steerlens.errors import UsageError
from steerlens.saes import SparseAutoencoder
from steerlens.studies.shared.ablation import Ablation
from steerlens.studies.shared.candidates import diffusion_candidates, steering_candidates
from steerlens.studies.shared.settings import LensSetting


@dataclass(frozen=True)
class OverlayOptions:
    """Options of the overlay study.

    Attributes:
        decode: decoding options.
        seed: first seed of the decoder, the same for all heads, and seed of the random orders.
        seeds: number of seeds over which scores are averaged on the pairs to report on; the selection and the pictures
            along trajectories use one seed.
        ablation: replacement of a head's write; `resample` takes the write for the base without the overlay.
        steering: candidates of the Steering Lens.
        diffusion: candidates of the Diffusion Lens, as many.
        batch: rows of a forward pass.
        greedy_pool: number of heads, best by their single effects, among which each greedy step searches.
        strips: number of reported pairs whose pictures along trajectories are kept.
        sae: the autoencoder whose features are studied; None for heads.
        features: number of its features.
        neurons: number of neurons that are studied in place of heads; 0 for none.
    """

    decode: DecodeOptions
    seed: int = 0
    ablation: Ablation = "resample"
    steering: tuple[LensSetting, ...] = field(default_factory=steering_candidates)
    diffusion: tuple[LensSetting, ...] = field(default_factory=diffusion_candidates)
    batch: int = 64
    greedy_pool: int = 128
    strips: int = 6
    seeds: int = 1

    sae: SparseAutoencoder | None = None
    features: int = 48
    neurons: int = 0

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise UsageError("the decoder needs at least 1 seed.")
        if len(self.steering) != len(self.diffusion):
            raise UsageError("both lenses need the same number of settings to choose from.")
