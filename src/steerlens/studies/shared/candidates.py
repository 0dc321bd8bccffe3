"""Lens settings of the studies: those that are always reported, and the candidates of each lens.

Both lenses get the same number of candidates, and no two candidates request the same embeddings: changing only the norm
of an embedding would not change the pictures of the Diffusion Lens.
"""

from collections.abc import Sequence

from steerlens.errors import UsageError
from steerlens.lenses import Strength
from steerlens.studies.shared.settings import LensSetting

_RHO, _HALF, _FACTOR = Strength("rho", 1.0), Strength("rho", 0.5), Strength("s", 40.0)

STRENGTHS: tuple[Strength, ...] = (_RHO, _HALF)
"""Default strengths of the candidates, all relative. One factor for all heads is reported beside them."""

LENSES: tuple[str, ...] = ("steering", "diffusion")
"""The lenses that compete."""

CHOSEN = "chosen"
"""Name of a lens' chosen setting in the names of scores and orders."""

PLAIN = (LensSetting("steering", _RHO), LensSetting("diffusion"))
"""Settings without any tuning; always reported."""

TOTAL_LENS = f"total {_RHO}"
"""Name of the Total Lens' embeddings, at the strength of the plain Steering Lens."""

ONE_FACTOR = LensSetting("steering", _FACTOR)
"""One factor for all heads. The paper steers with one, whose value is not known; this one is a choice of ours."""

ONE_FACTOR_NAME = f"steering, {ONE_FACTOR.strength} for all"
"""Name of its scores in summaries and tables."""

ONE_FACTOR_WORDS = "one factor for all heads (the paper's constant is not known)"
"""Its name for readers."""


_READABLE = {
    ONE_FACTOR_NAME: ONE_FACTOR_WORDS,
    " (ceiling)": "",
    "towards text": "towards the label",
    "towards other": "towards another picture",
    "steering minus diffusion": "Steering minus Diffusion Lens",
}

SCORE_WORDS = (
    "*Plain*: the lens as it is, the Steering Lens with `rho=1`. *Chosen*: with the setting chosen on other pictures. "
    "*Centred*: applied to writes without their mean over other pictures. A score is the similarity with the input, or "
    "with what it is turned *towards*: the label's text, or another picture of the same concept. *Total Lens*: the "
    "write is amplified on a real forward pass, where later layers react."
)
"""Names of scores, explained to readers."""


def readable(name: str) -> str:
    """Name of a score for readers.

    A baseline may exceed the exact direct effect, which earlier versions stored under the name of a ceiling.
    """
    for words, own in _READABLE.items():
        name = name.replace(words, own)
    lens, comma, rest = name.partition(", ")
    return f"{lens.capitalize()} Lens, {rest}" if comma and lens in (*LENSES, "total") else name


def tick_label(name: str) -> str:
    """Name of a score beside an axis, in two lines if it is long."""
    return readable(name).replace(" (the", "\n(the")


def candidate_name(setting: LensSetting) -> str:
    """Name of a candidate in the parts of the selection."""
    return f"candidate.{setting}"


def candidate_words(setting: LensSetting, compare: str) -> str:
    """A setting and its comparison, in words."""
    return f"{setting}, compared with {compare}"


CENTRED = (LensSetting("steering", _RHO, centred=True), LensSetting("diffusion", centred=True))
"""The plain settings applied to centred writes, to measure the effect of centring alone."""

NEUTRAL = LensSetting("steering", _RHO, base="neutral")
"""The plain setting with the mean residual of reference pictures as base, instead of the picture's own residual."""

WEAKER = LensSetting("steering", _HALF)
"""The plain setting at half the strength; only its embeddings are stored."""

# Around 1, where the added part is as large as the mean embedding.
_SHARES = (1.0, 0.5, 2.0, 0.25, 4.0, 0.125, 8.0)


def steering_candidates(strengths: Sequence[Strength] = STRENGTHS) -> tuple[LensSetting, ...]:
    """Candidates of the Steering Lens: plain, centred and from a neutral base, at every strength.

    Raises:
        UsageError: if there is no strength, a strength is repeated or steers nothing, or the Diffusion Lens cannot
            match their number.
    """
    if not strengths or len(set(strengths)) < len(strengths):
        raise UsageError("candidates need at least 1 strength, each of them once.")
    if clean := [str(strength) for strength in strengths if strength.is_clean]:
        raise UsageError(f"{clean[0]} is the clean run: nothing is steered, and all candidates would be the same.")
    if 3 * len(strengths) > _most():
        raise UsageError(f"give at most {_most() // 3} strengths: the Diffusion Lens has no more settings to match.")
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
    """Candidates of the Diffusion Lens: plain, centred, and both added to the neutral embedding.

    The lens itself has no strength. With a neutral base it has, and the remaining candidates differ in it.

    Args:
        count: number of candidates.

    Raises:
        UsageError: if the lens has fewer settings.
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
