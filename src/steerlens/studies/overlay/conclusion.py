"""Conclusion of the overlay study in plain sentences, and its claims; the figures alone decide the words."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from steerlens.studies.overlay.joint import ONE_SHOT
from steerlens.studies.overlay.orders import CHANGE, UNDECODED, chosen_order
from steerlens.studies.shared.conclusion import Claim, Conclusion, joined, noted
from steerlens.studies.shared.markdown import interval
from steerlens.studies.shared.partial import LAYER, NORM
from steerlens.studies.shared.stats import Estimate

if TYPE_CHECKING:
    from steerlens.studies.overlay.results import OverlaySummary


UNTUNED_DIFFERENCE = f"steering minus diffusion, plain{UNDECODED}"
"""Paired difference of the lenses as they are, without a choice of settings."""


def overlay_conclusion(summary: "OverlaySummary") -> Conclusion | None:
    """Concludes from areas of orders; None for studies of earlier versions, which lack the baselines."""
    areas = {row.name: row.area for row in summary.orders}
    decoded, undecoded = chosen_order("steering"), chosen_order("steering", UNDECODED)
    if CHANGE not in areas or undecoded not in areas:
        return None
    model, change = summary.model or "this model", areas[CHANGE]
    main = areas.get(decoded, areas[undecoded])
    order, before = "Steering Lens, not decoded,", ""
    if decoded in areas:
        order, before = "Steering Lens' pictures", f"; before decoding it reaches {interval(areas[undecoded])}"
    less = summary.differences.get(f"{undecoded}, minus {CHANGE}")
    return Conclusion(
        (
            f"On {model}, ablating heads in the order of the {order} {_removes(main)}: {interval(main)} on a scale "
            f"from 0 (random orders) to 1 (a greedy search){before}; the norm of the change that the overlay makes in "
            f"each head's write, which needs no lens, reaches {interval(change)}, {_beside(less)}"
            f"{f'; {summary.caution}' if summary.caution else ''}.",
            _other_lens(summary),
            f"Ablating each head once and sorting by its true effect reaches {interval(areas[ONE_SHOT])}.",
            _baselines(areas),
            f"Measured on {summary.n_pairs} pairs of base and overlay and {summary.n_heads} heads, by "
            f"{summary.ablation} ablation, with settings chosen on {summary.n_selection} other pairs; 95 % intervals "
            "in brackets.",
        ),
        "to find the heads that carry an object, compare their writes with and without it; use the lens to see "
        "what they write of it.",
    )


def _removes(area: Estimate) -> str:
    if area.above():
        return "removes an overlay better than random orders do"
    if area.excludes_zero:
        return "removes an overlay worse than random orders do"
    return "is not shown to remove an overlay better than random orders do"


def _beside(less: Estimate | None) -> str:
    """How the norm of the change compares with the undecoded order, from the latter minus the former."""
    if less is None or not less.excludes_zero:
        return "which is not told apart from the lens before decoding"
    return f"{'less' if less.above() else 'more'} than the lens before decoding"


def _baselines(areas: Mapping[str, Estimate]) -> str:
    words = joined([f"{name} {interval(areas[name])}" for name in (NORM, LAYER) if name in areas])
    return f"Other orders that need no lens: {words}." if words else "No other order without a lens was measured."


def _other_lens(summary: "OverlaySummary") -> str:
    words = "is not told apart from the Diffusion Lens"
    if summary.difference.excludes_zero:
        words = f"orders heads {'better' if summary.difference.above() else 'worse'} than the Diffusion Lens"
    text = f"The Steering Lens {words} (difference {interval(summary.difference)}"
    before = summary.differences.get(f"steering minus diffusion, chosen{UNDECODED}")
    if summary.decodes and before is not None:
        text += f"; before decoding {interval(before)}"
    text += f"{'' if summary.decodes else ', not decoded'})"
    untuned = summary.differences.get(UNTUNED_DIFFERENCE)
    if untuned is None:
        return f"{text}."
    how = "is not told apart"
    if untuned.excludes_zero:
        how = f"does {'better' if untuned.above() else 'worse'}"
    return f"{text}; untuned and not decoded, it {how} ({interval(untuned)})."


def overlay_claims(summary: "OverlaySummary") -> list[Claim]:
    """Claims that are compared between models."""
    areas = {row.name: row.area for row in summary.orders}
    claims: list[Claim] = []
    for ending, how in ((UNDECODED, "before decoding"), ("", "in pictures")):
        order = chosen_order("steering", ending)
        if order not in areas:
            continue
        what = "Ablating heads in the Steering Lens' order removes an overlay better than"
        claims.append(Claim(f"{what} random orders do", areas[order], 0.0, how, leading=True))
        for name, words in (
            (f"steering minus diffusion, chosen{ending}", "the Diffusion Lens' order does"),
            (f"{order}, minus {CHANGE}", "the order by the norm of the change in each head's write does"),
        ):
            if (difference := summary.differences.get(name)) is not None:
                claims.append(Claim(f"{what} {words}", difference, 0.0, how, leading=True))
    if (untuned := summary.differences.get(UNTUNED_DIFFERENCE)) is not None:
        what = (
            "Ablating heads in the order of the untuned Steering Lens removes an overlay better than the order of the "
        )
        claims.append(Claim(f"{what}untuned Diffusion Lens does", untuned, 0.0, "before decoding", leading=True))
    return noted(claims, summary.caution)
