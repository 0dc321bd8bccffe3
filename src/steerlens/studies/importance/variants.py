"""Changes to the Steering Lens beyond the paper: centred writes, a neutral base, comparison with a concept.

Settings are fixed in advance, and both sides of a difference are decoded with the same seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from steerlens.studies.shared.candidates import CENTRED, NEUTRAL, PLAIN, candidate_words
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.measurements import PictureTables
from steerlens.studies.shared.records import Key, Record
from steerlens.studies.shared.settings import LensSetting
from steerlens.studies.shared.stats import Estimate, correlation_estimate, difference_estimate
from steerlens.studies.shared.targets import INPUT

CENTRED_VARIANT, NEUTRAL_VARIANT, DIRECTED_VARIANT = "centred", "neutral base", "concept-directed"


@dataclass(frozen=True)
class Variant(Record):
    """A change to the Steering Lens, and how it changes the Spearman correlation over heads with the main effect.

    Attributes:
        name: name of the change.
        first: the score with the change.
        second: the score without the change.
        decoded: correlation of the first score for decoded pictures.
        decoded_difference: paired difference, first minus second.
        undecoded: correlation of the first score for requested embeddings.
        undecoded_difference: paired difference, first minus second.
        by_construction: True if an undecoded score compares with the effect's own target.
    """

    name: str
    first: str
    second: str
    decoded: Estimate
    decoded_difference: Estimate
    undecoded: Annotated[Estimate, Key("asked")]
    undecoded_difference: Annotated[Estimate, Key("asked_difference")]
    by_construction: bool


def variants(tables: PictureTables, concepts: Sequence[str], main: Effect, *, draws: int = 1000) -> tuple[Variant, ...]:
    """Measures three changes: centred writes; a neutral base; comparison with the effect's target, not the input.

    Settings that were not decoded are left out.

    Args:
        tables: measurements of the pictures to report on.
        concepts: concept of each picture.
        main: the main effect.
        draws: bootstrap draws.

    Raises:
        StoreError: if a part lacks the embeddings.
    """
    towards = main.target or next(iter(tables.targets), INPUT)
    plain = PLAIN[0]
    sides = {
        CENTRED_VARIANT: ((CENTRED[0], towards), (plain, towards)),
        NEUTRAL_VARIANT: ((NEUTRAL, towards), (plain, towards)),
    }
    if towards != INPUT:
        sides[DIRECTED_VARIANT] = ((plain, towards), (plain, INPUT))
    effect = main.table(tables)

    def variant(name: str, first: tuple[LensSetting, str], second: tuple[LensSetting, str]) -> Variant:
        seeds = tables.seeds(first[0], second[0])
        decoded = [tables.decoded_scores(*side, seeds=seeds).mean(dim=0) for side in (first, second)]
        undecoded = [tables.requested_scores(*side) for side in (first, second)]

        def own(scores: Sequence[Tensor]) -> Estimate:
            return correlation_estimate(scores[0], effect, concepts, draws=draws)

        def difference(scores: Sequence[Tensor]) -> Estimate:
            return difference_estimate(scores[0], scores[1], effect, concepts, draws=draws)

        return Variant(
            name=name,
            first=candidate_words(*first),
            second=candidate_words(*second),
            decoded=own(decoded),
            decoded_difference=difference(decoded),
            undecoded=own(undecoded),
            undecoded_difference=difference(undecoded),
            by_construction=main.target in (first[1], second[1]),
        )

    return tuple(variant(name, *pair) for name, pair in sides.items() if tables.is_decoded(pair[0][0]))
