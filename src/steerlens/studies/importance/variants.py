"""Changes to the Steering Lens beyond the paper: centred writes, a neutral base, a concept to look for.

Nothing is chosen here: settings are fixed, and both sides of a difference are decoded with the same seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from steerlens.studies.importance.scores import candidate_words
from steerlens.studies.shared.candidates import CENTRED, NEUTRAL, PLAIN
from steerlens.studies.shared.effects import Effect
from steerlens.studies.shared.measurements import PictureTables
from steerlens.studies.shared.records import Key, Record
from steerlens.studies.shared.settings import LensSetting
from steerlens.studies.shared.stats import Estimate, correlation_estimate, difference_estimate
from steerlens.studies.shared.targets import INPUT

CENTRED_VARIANT, NEUTRAL_VARIANT, DIRECTED_VARIANT = "centred", "neutral base", "concept-directed"


@dataclass(frozen=True)
class Variant(Record):
    """A change to the Steering Lens, by its Spearman correlation over heads with the main effect.

    Attributes:
        name: of the change.
        first: the score with the change.
        second: the score without it.
        decoded: correlation of the first, of decoded pictures.
        decoded_difference: paired, first minus second.
        undecoded: correlation of the first, of requested embeddings.
        undecoded_difference: paired, first minus second.
        by_construction: whether either undecoded side is compared with the very target of the effect.
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
    """Centred writes and a neutral base, compared with the effect's target; and that target instead of the input.

    Settings that were not decoded are left out.

    Args:
        tables: of the pictures to report on.
        concepts: of those pictures.
        main: the main effect.
        draws: bootstrap draws.

    Raises:
        StoreError: if a part lacks what it needs.
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

    return tuple(variant(name, *both) for name, both in sides.items() if tables.is_decoded(both[0][0]))
