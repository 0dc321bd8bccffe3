"""Conclusion of the overlay study in plain sentences, and its claims; the figures alone decide the words."""

from typing import TYPE_CHECKING

from steerlens.studies.overlay.joint import ONE_SHOT
from steerlens.studies.overlay.orders import CHANGE, UNDECODED, chosen_order
from steerlens.studies.shared.conclusion import Claim, Conclusion
from steerlens.studies.shared.markdown import interval

if TYPE_CHECKING:
    from steerlens.studies.overlay.results import OverlaySummary


def overlay_conclusion(summary: "OverlaySummary") -> Conclusion | None:
    """Concludes from areas of orders; None for studies of earlier versions, which lack the baselines."""
    areas = {row.name: row.area for row in summary.orders}
    decoded, undecoded = chosen_order("steering"), chosen_order("steering", UNDECODED)
    if CHANGE not in areas or undecoded not in areas:
        return None
    model, change = summary.model or "this model", areas[CHANGE]
    main = areas.get(decoded, areas[undecoded])
    works = "removes" if main.above() else "does not remove"
    order, beside = "Steering Lens, not decoded,", "."
    if decoded in areas:
        order, beside = "Steering Lens' pictures", f", and {interval(areas[undecoded])} before decoding."
    less = summary.differences.get(f"{undecoded}, minus {CHANGE}")
    verdict = "about as well as"
    if less is not None and less.excludes_zero:
        verdict = "better than" if less.above() else "worse than"
    return Conclusion(
        (
            f"On {model}, ablating heads in the order of the {order} {works} an overlay better than random orders do: "
            f"{interval(main)} on a scale from 0 (random) to 1 (a greedy search){beside}",
            f"Before decoding it orders heads {verdict} the norm of the change that the overlay makes in each head's "
            f"write, which needs no lens ({interval(change)}).",
            f"Ablating each head once and sorting by its true effect reaches {interval(areas[ONE_SHOT])}.",
            _other_lens(summary),
            f"Measured on {summary.n_pairs} pairs of base and overlay and {summary.n_heads} heads, by "
            f"{summary.ablation} ablation; 95 % intervals in brackets.",
        ),
        "to find the heads that carry an object, compare their writes with and without it; use the lens to see "
        "what they "
        "write of it.",
    )


def _other_lens(summary: "OverlaySummary") -> str:
    words = "no better and no worse than"
    if summary.difference.excludes_zero:
        words = "better than" if summary.difference.above() else "worse than"
    return (
        f"The Steering Lens orders heads {words} the Diffusion Lens (difference {interval(summary.difference)})"
        f"{'' if summary.decodes else ', not decoded'}."
    )


def overlay_claims(summary: "OverlaySummary") -> list[Claim]:
    """Claims that are compared between models."""
    areas = {row.name: row.area for row in summary.orders}
    claims: list[Claim] = []
    for ending, how in ((UNDECODED, "before decoding"), ("", "in pictures")):
        order = chosen_order("steering", ending)
        if order not in areas:
            continue
        claims.append(Claim(f"Steering Lens' order removes an overlay better than random orders, {how}", areas[order]))
        for name, words in (
            (f"steering minus diffusion, chosen{ending}", "the Diffusion Lens' order"),
            (f"{order}, minus {CHANGE}", "the norm of the change in each write"),
        ):
            if (difference := summary.differences.get(name)) is not None:
                claims.append(Claim(f"Steering Lens' order does better than {words}, {how}", difference))
    return claims
