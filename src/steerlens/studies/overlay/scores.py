"""Scores of heads in the overlay study: similarity of their pictures, or requested embeddings, with the overlay."""

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
from steerlens.zoo import Pair

OVERLAY, OBJECTIVE, NAME = "overlay", "objective", "text"
"""Comparisons of a head's picture: with the overlay; with overlay and base, by the objective that evaluates orders;
with the overlay's name."""

COMPARISONS = {
    OVERLAY: "the overlay's picture",
    OBJECTIVE: "the overlay's picture less the base's",
    NAME: "the overlay's name",
}
"""Comparisons in words."""


def lens_score(part: OverlayPart, setting: object, compare: str, view: View = "decoded") -> Float[Tensor, "N"]:
    """Scores each head by the overlay in its picture, mean over seeds.

    Args:
        part: measurements of a pair.
        setting: the lens' setting, or its name in the part.
        compare: one of `COMPARISONS`.
        view: embeddings that are compared: decoded, requested or judged; the judge has its own embeddings of base,
            overlay and references.

    Raises:
        StoreError: if the part lacks the embeddings.
    """
    scores = seed_scores(part, setting, compare, view)
    return scores if view == "requested" else scores.mean(dim=0)


def seed_scores(
    part: OverlayPart, setting: object, compare: str, view: View = "decoded"
) -> Float[Tensor, "N"] | Float[Tensor, "S N"]:
    """The same by seed; requested embeddings have no seeds."""
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
    """Comparison by the judge: it reads no names of overlays, and uses the objective instead."""
    return OBJECTIVE if compare == NAME else compare


def comparisons(pair: Pair, overlaid: Sequence[Overlaid]) -> tuple[str, ...]:
    """Comparisons that every pair allows; the overlay's name only if the model knows all names."""
    known = all(overlay_text(pair, picture) is not None for picture in overlaid)
    return (OVERLAY, OBJECTIVE, NAME) if known else (OVERLAY, OBJECTIVE)


def overlay_text(pair: Pair, overlaid: Overlaid) -> Float[Tensor, "E"] | None:
    """Direction of the overlay's name, or None if the pair reads no texts or does not know the name."""
    try:
        return pair.text_direction(overlaid.overlay_concept).float()
    except UsageError:
        return None


def untuned_settings() -> dict[str, LensSetting]:
    """Settings without any tuning, by the name of their order: plain settings, and one factor for all heads."""
    return {f"{setting.lens}, plain": setting for setting in PLAIN} | {ONE_FACTOR_NAME: ONE_FACTOR}
