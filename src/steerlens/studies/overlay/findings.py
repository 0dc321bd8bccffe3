"""Findings of the overlay study in words, and its bars; the figures alone decide which sentence is printed."""

from steerlens.studies.overlay.joint import DIRECT, ONE_SHOT
from steerlens.studies.overlay.orders import UNDECODED, chosen_order
from steerlens.studies.overlay.results import ONE_SHOT_DIFFERENCE, UNDECODED_DIFFERENCE, OverlaySummary
from steerlens.studies.shared.markdown import Bar, Finding, aim, at_least, claim, interval, lost, met
from steerlens.studies.shared.stats import Estimate

OVERLAY_AIM = 0.85
"""Aim for the normalised area of the Steering Lens' order."""


def overlay_findings(summary: OverlaySummary) -> list[Finding]:
    """Findings of the overlay study; headlines are repeated on the verdict page."""
    steering, diffusion = chosen_order("steering"), chosen_order("diffusion")
    low, high = summary.random_range
    area, undecoded = summary.area(steering), summary.area(chosen_order("steering", UNDECODED))
    better = "no better than random orders"
    if area.above():
        better = "better than all random orders" if area.value > high else "better than random orders on average"
    direct = summary.area(DIRECT)
    limit = ", the limit of a lens of direct contributions," if at_least(direct, undecoded) else ""
    findings = [
        Finding(
            f"The Steering Lens' pictures order heads {better} (area {interval(area)}; single random orders "
            f"{low:+.2f} to {high:+.2f}).",
            headline=True,
        ),
        Finding(_overlap(summary.differences[ONE_SHOT_DIFFERENCE], summary.area(ONE_SHOT)), headline=True),
        Finding(
            claim(
                "The Steering Lens' pictures order heads better than the Diffusion Lens' pictures, each with its "
                "chosen setting",
                summary.difference,
                area,
                summary.area(diffusion),
                model=summary.model,
            ),
            headline=True,
        ),
        Finding(
            claim(
                "The same before decoding, with the setting that undecoded scores choose for each lens",
                summary.differences[UNDECODED_DIFFERENCE],
                undecoded,
                summary.area(chosen_order("diffusion", UNDECODED)),
                model=summary.model,
            ),
            headline=True,
        ),
        Finding(
            f"Without decoding, the Steering Lens reaches an area of {interval(undecoded)}; the exact direct "
            f"effect{limit} reaches {interval(direct)}."
        ),
    ]
    rows = {row.score: row for row in summary.attenuation}
    return findings + [Finding(text) for text in lost(rows[steering], "each head's own effect on the objective")]


def _overlap(difference: Estimate, one_shot: Estimate) -> str:
    """Verdict on the paper's claim of an overlap with the order of true single effects."""
    what = (
        "The paper's claim that the Steering Lens' trajectory overlaps with that of the ACDC-like order (heads sorted "
        f"by their true single effects, area {interval(one_shot)}), decoded"
    )
    if not difference.excludes_zero:
        return f"{what}: **not contradicted**; the paired difference of areas includes 0 ({interval(difference)})."
    if difference.value > 0:
        return f"{what}: **surpassed**; its area is larger (paired difference {interval(difference)})."
    return f"{what}: **not found**; its area is smaller (paired difference {interval(difference)})."


def overlay_bars(summary: OverlaySummary) -> list[Bar]:
    """Figures of the study on the verdict page, with their bars."""
    area = summary.bar
    what = "overlay: Steering Lens, normalised area (0 random order, 1 greedy reference)"
    return [
        Bar(what, interval(area), "interval above 0", met(area.above())),
        Bar(what, interval(area), f"aim: {OVERLAY_AIM:g}", aim(area.value >= OVERLAY_AIM)),
    ]
