"""Settings with which the lenses compete: those that are always reported, and the candidates of each lens.

Both lenses get the same number of candidates, and no two of them make the same embeddings: the norm of an embedding
alone would change nothing that the Diffusion Lens shows.
"""

from collections.abc import Sequence

from steerlens.errors import UsageError
from steerlens.lenses.strength import Strength
from steerlens.studies.shared.settings import LensSetting

_RHO, _FACTOR = Strength("rho", 1.0), Strength("s", 40.0)

STRENGTHS: tuple[Strength, ...] = (_RHO, _FACTOR)
"""Default strengths of the candidates: a relative one, and one factor for all heads as in the paper."""

PLAIN = (LensSetting("steering", _RHO), LensSetting("diffusion"))
"""Settings without any tuning; always reported."""

ONE_FACTOR = LensSetting("steering", _FACTOR)
"""One factor for all heads, as the paper steers; the paper's constant is not known. Always reported."""

ONE_FACTOR_NAME = f"steering, {ONE_FACTOR.strength} for all"
"""The name of its scores in summaries and tables."""

ONE_FACTOR_WORDS = "one factor for all heads (the paper's constant is not known)"
"""Its name for readers."""


def readable(name: str) -> str:
    """The name of a score for readers."""
    return name.replace(ONE_FACTOR_NAME, ONE_FACTOR_WORDS)


CENTRED = (LensSetting("steering", _RHO, centred=True), LensSetting("diffusion", centred=True))
"""The plain settings applied to centred writes: they show what centring alone changes."""

NEUTRAL = LensSetting("steering", _RHO, base="neutral")
"""The plain setting from the mean residual of reference pictures instead of the picture's own."""

# Around 1, where the added part weighs as much as the mean embedding.
_SHARES = (1.0, 0.5, 2.0, 0.25, 4.0, 0.125, 8.0)


def steering_candidates(strengths: Sequence[Strength] = STRENGTHS) -> tuple[LensSetting, ...]:
    """Candidates of the Steering Lens: plain, centred and from a neutral base, at every strength.

    Raises:
        UsageError: if there is no strength, one comes twice, or there are more than the Diffusion Lens can match.
    """
    if not strengths or len(set(strengths)) < len(strengths):
        raise UsageError("candidates need at least 1 strength, and each of them once.")
    if 3 * len(strengths) > _most():
        raise UsageError(f"at most {_most() // 3} strengths: the Diffusion Lens has no more settings to match them.")
    return tuple(
        setting
        for strength in strengths
        for setting in (
            LensSetting("steering", strength),
            LensSetting("steering", strength, centred=True),
            LensSetting("steering", strength, base="neutral"),
        )
    )


def diffusion_candidates(count: int = 3 * len(STRENGTHS)) -> tuple[LensSetting, ...]:
    """Candidates of the Diffusion Lens: plain, centred, and either of them added to the neutral embedding.

    The lens itself has no strength. From a neutral base it has one, which supplies the remaining candidates.

    Args:
        count: how many.

    Raises:
        UsageError: if there are not so many.
    """
    if not 1 <= count <= _most():
        raise UsageError(f"the Diffusion Lens has 1 to {_most()} settings to choose from, not {count}.")
    neutral = tuple(
        LensSetting("diffusion", Strength("rho", share), centred=centred, base="neutral")
        for share in _SHARES
        for centred in (False, True)
    )
    return (PLAIN[1], CENTRED[1], *neutral)[:count]


def _most() -> int:
    return 2 + 2 * len(_SHARES)
