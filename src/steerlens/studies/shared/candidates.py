"""The settings that lenses compete with: those that are always reported, and those that each lens may choose from.

Either lens gets the same number of candidates, and every one of them makes other embeddings than the others: the
strengths and the norm of an embedding alone would change nothing that the Diffusion Lens shows.
"""

from collections.abc import Sequence

from steerlens.errors import UsageError
from steerlens.lenses.strength import Strength
from steerlens.studies.shared.settings import LensSetting

_RHO, _FACTOR = Strength("rho", 1.0), Strength("s", 40.0)

STRENGTHS: tuple[Strength, ...] = (_RHO, _FACTOR)
"""What candidates are steered with if nothing else is asked for: a relative strength, and a factor as in the paper."""

PLAIN = (LensSetting("steering", _RHO), LensSetting("diffusion"))
"""Nothing tuned, compared with the input; always reported."""

PUBLISHED = LensSetting("steering", _FACTOR)
"""The paper's setting, one factor for all heads; its exact value is not known here. Always reported."""

CENTRED = (LensSetting("steering", _RHO, centred=True), LensSetting("diffusion", centred=True))
"""The plain settings of the writes less their means: like with like, and what centring alone changes."""

NEUTRAL = LensSetting("steering", _RHO, base="neutral")
"""The plain setting from the mean residual of reference pictures instead of the picture's own."""

# Around 1, where what is added weighs as much as the mean embedding.
_SHARES = (1.0, 0.5, 2.0, 0.25, 4.0, 0.125, 8.0)


def steering_candidates(strengths: Sequence[Strength] = STRENGTHS) -> tuple[LensSetting, ...]:
    """What the Steering Lens chooses from: plain, centred and from a neutral base, at every strength.

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
    """What the Diffusion Lens chooses from: plain, centred, and either added to the neutral embedding.

    It has no strength of its own. From a neutral base it has one, by which it gets as many settings as it is to have.

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
