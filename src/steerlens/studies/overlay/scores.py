"""Scores of heads in the overlay study: how much of the overlay their pictures, or requested embeddings, show."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from steerlens.errors import StoreError, UsageError
from steerlens.scores import cosine_similarity
from steerlens.studies.overlay.joint import objective
from steerlens.studies.overlay.parts import OverlayPart
from steerlens.studies.overlay.pictures import Overlaid
from steerlens.studies.shared.candidates import ONE_FACTOR, ONE_FACTOR_NAME, PLAIN
from steerlens.studies.shared.measurements import View
from steerlens.studies.shared.settings import LensSetting
from steerlens.zoo.pair import Pair

OVERLAY, OBJECTIVE, NAME = "overlay", "objective", "text"
"""Comparisons of a head's picture: with the overlay; with the overlay minus the base, by which orders are evaluated;
with the overlay's name."""

COMPARISONS = {
    OVERLAY: "the overlay's picture",
    OBJECTIVE: "the overlay's picture less the base's",
    NAME: "the overlay's name",
}
"""Comparisons in words."""


def lens_score(part: OverlayPart, setting: object, compare: str, view: View = "decoded") -> Float[Tensor, "N"]:
    """How much of the overlay a lens shows of each head, mean of seeds.

    Args:
        part: of one pair.
        setting: the lens' setting, or its name in the part.
        compare: one of `COMPARISONS`.
        view: decoded pictures; requested embeddings; decoded pictures as the judge sees them, with its own embeddings
            of base, overlay and references.

    Raises:
        StoreError: if the part lacks what it needs.
    """
    scores = seed_scores(part, setting, compare, view)
    return scores if view == "requested" else scores.mean(dim=0)


def seed_scores(
    part: OverlayPart, setting: object, compare: str, view: View = "decoded"
) -> Float[Tensor, "N"] | Float[Tensor, "S N"]:
    """The same seed by seed, where there are seeds."""
    families: Mapping[View, Mapping[str, Tensor]] = {
        "requested": part.requested,
        "decoded": part.decoded,
        "judged": part.judged,
    }
    embeddings, references = families[view].get(str(setting)), part.judges if view == "judged" else part.own
    if embeddings is None or references is None:
        raise StoreError(f"a part of this study holds no {view} embeddings of {str(setting)!r}.")
    if compare == OBJECTIVE:
        return objective(embeddings, references.base, references.overlay, references.mean)
    target = part.text if compare == NAME else references.overlay
    if target is None:
        raise StoreError("a part of this study holds no direction of its overlay's name.")
    return cosine_similarity(embeddings, target)


def judged_comparison(compare: str) -> str:
    """The judge's comparison: it reads no names of overlays, and goes by the objective instead."""
    return OBJECTIVE if compare == NAME else compare


def comparisons(pair: Pair, overlaid: Sequence[Overlaid]) -> tuple[str, ...]:
    """Comparisons that every pair allows: the overlay's name only where the model knows all of them."""
    known = all(overlay_text(pair, one) is not None for one in overlaid)
    return (OVERLAY, OBJECTIVE, NAME) if known else (OVERLAY, OBJECTIVE)


def overlay_text(pair: Pair, overlaid: Overlaid) -> Float[Tensor, "E"] | None:
    """The direction of the overlay's name, or None if the pair reads no texts, or does not know this one."""
    try:
        return pair.text_direction(overlaid.overlay_concept).float()
    except UsageError:
        return None


def untuned_settings() -> dict[str, LensSetting]:
    """Settings without any tuning, by the name of their order: the plain ones, and one factor for all heads."""
    return {f"{setting.lens}, plain": setting for setting in PLAIN} | {ONE_FACTOR_NAME: ONE_FACTOR}


def candidate_name(setting: LensSetting) -> str:
    """The name of a candidate in the parts of the selection."""
    return f"candidate.{setting}"
