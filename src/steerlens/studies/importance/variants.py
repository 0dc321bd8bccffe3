"""What goes beyond the paper, each against what it replaces: centred writes, a neutral base, a concept to look for.

Nothing is chosen here: settings are fixed, and both sides of a difference are seen with the same seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from steerlens.studies.shared.candidates import CENTRED, NEUTRAL, PLAIN
from steerlens.studies.shared.notions import INPUT, Effect, Parts, targets_of
from steerlens.studies.shared.scores import asked_score, common_seeds, is_decoded, made_scores
from steerlens.studies.shared.settings import LensSetting
from steerlens.studies.shared.stats import Estimate, correlation_estimate, difference_estimate


@dataclass(frozen=True)
class Variant:
    """A change to the Steering Lens, by its correlation (Spearman over heads) with the main effect.

    Attributes:
        name: what is changed.
        first: the score with the change.
        second: the score that it is held against.
        decoded: the first's correlation, of decoded pictures.
        decoded_difference: paired, first minus second.
        asked: the first's correlation, of the embeddings asked for.
        asked_difference: paired, first minus second.
        by_construction: whether either undecoded side is compared with the very target of the effect.
    """

    name: str
    first: str
    second: str
    decoded: Estimate
    decoded_difference: Estimate
    asked: Estimate
    asked_difference: Estimate
    by_construction: bool


def variants(parts: Parts, concepts: Sequence[str], main: Effect, *, draws: int = 1000) -> tuple[Variant, ...]:
    """Centred writes and a neutral base, compared with the effect's target; and that target instead of the input.

    What was not decoded is left out.

    Args:
        parts: of the pictures to report on.
        concepts: of those pictures.
        main: the main effect.
        draws: bootstrap draws.

    Raises:
        StoreError: if a part lacks what it needs.
    """
    towards = main.target or next(iter(targets_of(parts)), INPUT)
    plain = PLAIN[0]
    sides = {
        "centred": ((CENTRED[0], towards), (plain, towards)),
        "neutral base": ((NEUTRAL, towards), (plain, towards)),
    }
    if towards != INPUT:
        sides["concept-directed"] = ((plain, towards), (plain, INPUT))
    effect = main.table(parts)

    def variant(name: str, first: tuple[LensSetting, str], second: tuple[LensSetting, str]) -> Variant:
        seeds = common_seeds(parts, str(first[0]), str(second[0]))
        made = [made_scores(parts, str(one), compare, seeds=seeds).mean(dim=0) for one, compare in (first, second)]
        asked = [asked_score(parts, str(one), compare) for one, compare in (first, second)]

        def own(scores: Sequence[Tensor]) -> Estimate:
            return correlation_estimate(scores[0], effect, concepts, draws=draws)

        def difference(scores: Sequence[Tensor]) -> Estimate:
            return difference_estimate(scores[0], scores[1], effect, concepts, draws=draws)

        return Variant(
            name=name,
            first=f"{first[0]}, compared with {first[1]}",
            second=f"{second[0]}, compared with {second[1]}",
            decoded=own(made),
            decoded_difference=difference(made),
            asked=own(asked),
            asked_difference=difference(asked),
            by_construction=main.target in (first[1], second[1]),
        )

    return tuple(variant(name, *both) for name, both in sides.items() if is_decoded(parts, both[0][0]))
