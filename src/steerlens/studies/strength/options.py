"""Options of the strength study."""

from dataclasses import dataclass

from steerlens.decoders import DecodeOptions
from steerlens.errors import UsageError
from steerlens.lenses import Strength
from steerlens.studies.shared.ablation import Ablation
from steerlens.studies.shared.bench import Bench
from steerlens.studies.shared.records import Record
from steerlens.studies.shared.sampling import stratified_heads


@dataclass(frozen=True)
class StrengthOptions:
    """Options of the strength study.

    Attributes:
        decode: decoding options.
        strengths: strengths of the sweep.
        seeds: seeds of the decoder, the same for all heads and strengths; scores are averaged over them.
        ablation: replacement of a head's write.
        heads_per_picture: number of heads to decode, a random sample with equal shares of the layers, the same for all
            pictures and strengths; None for all. Measurements without a decoder cover all heads.
        batch: rows of a forward pass.
    """

    decode: DecodeOptions
    strengths: tuple[Strength, ...]
    seeds: tuple[int, ...] = (0,)
    ablation: Ablation = "mean"
    heads_per_picture: int | None = None
    batch: int = 64

    def __post_init__(self) -> None:
        if len(set(self.strengths)) < 2 or len(set(self.strengths)) < len(self.strengths):
            raise UsageError("a sweep needs at least 2 strengths, each of them once.")
        if not self.seeds:
            raise UsageError("the decoder needs at least 1 seed.")

    def columns(self, bench: Bench) -> list[int]:
        """Indices of the heads to decode."""
        return stratified_heads(bench.sites, self.heads_per_picture, self.seeds[0])


@dataclass(frozen=True)
class Bounds(Record):
    """Conditions on a recommended strength.

    Attributes:
        fidelity: least mean fidelity of its pictures, as a share of the clean pictures' mean fidelity.
        atypical: largest share of its steered embeddings beyond the 95th percentile of real embeddings'
            nearest-neighbour distances.
    """

    fidelity: float = 0.5
    atypical: float = 0.5
