"""Options of the identification study."""

from collections.abc import Sequence
from dataclasses import dataclass

from steerlens.decoders import DecodeOptions
from steerlens.encoders import EncoderSpec
from steerlens.errors import UsageError
from steerlens.lenses import Strength
from steerlens.sites import Site, all_heads
from steerlens.studies.shared.sampling import stratified_heads
from steerlens.studies.shared.subjects import Subject


@dataclass(frozen=True)
class IdentificationOptions:
    """Options of the identification study.

    Attributes:
        decode: decoding options.
        strength: strength of a head's own write; foils and controls are steered by the same relative strength.
        seeds: seeds of the decoder, the same for all heads; similarities are averaged over them.
        n_foils: other pictures whose writes are decoded for each picture.
        heads_per_picture: number of heads, a random sample with equal shares of the layers; None for all.
    """

    decode: DecodeOptions
    strength: Strength
    seeds: tuple[int, ...] = (0,)
    n_foils: int = 1
    heads_per_picture: int | None = None

    def __post_init__(self) -> None:
        if not self.seeds:
            raise UsageError("the decoder needs at least 1 seed.")
        if self.n_foils < 1:
            raise UsageError(f"each picture is compared with at least 1 other picture, not {self.n_foils}.")

    def sites(self, spec: EncoderSpec) -> tuple[Site, ...]:
        """The studied heads of an encoder."""
        sites = all_heads(spec.n_layers, spec.n_heads)
        return tuple(sites[place] for place in stratified_heads(sites, self.heads_per_picture, self.seeds[0]))


def foils_of(subjects: Sequence[Subject], n_foils: int) -> list[tuple[int, ...]]:
    """Indices of the other pictures whose writes are decoded for each picture: the next ones of another concept.

    Each picture follows all others equally often, so a picture that resembles every input gains nothing on average.

    Raises:
        UsageError: if there are too few pictures of other concepts.
    """
    foils: list[tuple[int, ...]] = []
    for place, subject in enumerate(subjects):
        following = ((place + step) % len(subjects) for step in range(1, len(subjects)))
        others = tuple(other for other in following if subjects[other].concept != subject.concept)
        if len(others) < n_foils:
            raise UsageError(
                f"{subject.id} has {len(others)} pictures of other concepts to be compared with, fewer than {n_foils}; "
                "give more pictures, or lower --foils."
            )
        foils.append(others[:n_foils])
    return foils
