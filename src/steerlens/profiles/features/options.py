"""Options of feature dashboards."""

from dataclasses import dataclass

from steerlens.decoders import DecodeOptions
from steerlens.errors import UsageError
from steerlens.lenses import Strength
from steerlens.naming import NamesMethod
from steerlens.saes import SparseAutoencoder


@dataclass(frozen=True)
class FeatureOptions:
    """Options of feature dashboards.

    Attributes:
        decode: options of the decoder.
        strength: steering strength of a feature from the mean picture.
        n_top: top pictures of a feature.
        n_texts: texts of a feature; 0 for none.
        n_decoded: number of features that are decoded, those with the largest sum of activations.
        ablate: whether each feature is ablated in a real forward pass on its first top picture.
        names: `omp` adds a sum of texts to the nearest texts.
        seed: seed of the decoder and of all random draws.
        batch: pictures in a forward pass.
        chunk: features described between two writes to disk.
    """

    decode: DecodeOptions
    strength: Strength
    n_top: int = 8
    n_texts: int = 6
    n_decoded: int = 256
    ablate: bool = True
    names: NamesMethod = "nearest"
    seed: int = 0
    batch: int = 16
    chunk: int = 128

    def __post_init__(self) -> None:
        if self.n_top < 1 or self.n_texts < 0 or self.n_decoded < 0 or self.batch < 1 or self.chunk < 1:
            raise UsageError("--top must be at least 1; --texts and --decode cannot be negative.")
        if self.names == "textspan":
            raise UsageError("--names textspan explains the writes of heads; a feature has one direction: --names omp.")


def reads_values(sae: SparseAutoencoder, options: FeatureOptions) -> bool:
    """True if the pass that measures effects needs the autoencoder's values: to ablate, or to divide heads' writes."""
    return options.ablate or sae.normalisation.kind != "none"
