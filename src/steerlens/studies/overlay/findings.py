"""Findings of the overlay study in words, and its bars; the figures alone decide which sentence is printed."""

from steerlens.studies.overlay.conclusion import UNTUNED_DIFFERENCE
from steerlens.studies.overlay.joint import DIRECT, ONE_SHOT, RANDOM_ORDERS
from steerlens.studies.overlay.orders import CHANGE, UNDECODED, chosen_order
from steerlens.studies.overlay.results import (
    ONE_SHOT_DIFFERENCE,
    UNDECODED_DIFFERENCE,
    UNDECODED_ONE_SHOT,
    OverlaySummary,
)
from steerlens.studies.shared.markdown import Bar, Finding, aim, at_least, claim, interval, lost, met, on
from steerlens.studies.shared.partial import NORM
from steerlens.studies.shared.stats import Estimate

LEAST_AREA, LEAST_UNDECODED = 0.4, 0.7
"""Aims on a real encoder, for decoded pictures and before decoding."""

OVERLAY_AIM = 0.85
"""Aim for the normalised area of the Steering Lens' order."""


def overlay_findings(summary: OverlaySummary) -> list[Finding]:
    """Findings of the overlay study; headlines are repeated on the verdict page."""
    if not summary.decodes:
        return _undecoded_findings(summary)
    steering, diffusion = chosen_order("steering"), chosen_order("diffusion")
    low, high = summary.random_range
    area, undecoded = summary.area(steering), summary.area(chosen_order("steering", UNDECODED))
    lens = on(summary.model, "the Steering Lens")
    findings = [
        Finding(
            f"{lens}' pictures order heads {_better(area, high)} (area {interval(area)}; "
            f"single random orders {low:+.2f} to {high:+.2f}).",
            headline=True,
        ),
        Finding(_overlap(summary, ONE_SHOT_DIFFERENCE), headline=True),
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
        *_untuned(summary),
        _direct(summary),
    ]
    rows = {row.score: row for row in summary.attenuation}
    return findings + [Finding(text) for text in lost(rows[steering], "each head's own effect on the objective")]


def _undecoded_findings(summary: OverlaySummary) -> list[Finding]:
    """Findings of a study without a decoder: of the orders that requested embeddings give."""
    low, high = summary.random_range
    area, diffusion = (summary.area(chosen_order(lens, UNDECODED)) for lens in ("steering", "diffusion"))
    return [
        Finding(
            f"{on(summary.model, 'without a decoder')}, the Steering Lens orders heads {_better(area, high)} (area "
            f"{interval(area)}; single random orders {low:+.2f} to {high:+.2f}).",
            headline=True,
        ),
        Finding(_overlap(summary, UNDECODED_ONE_SHOT, "not decoded"), headline=True),
        Finding(
            claim(
                "The Steering Lens orders heads better than the Diffusion Lens, each with its chosen setting, not "
                "decoded",
                summary.difference,
                area,
                diffusion,
                model=summary.model,
            ),
            headline=True,
        ),
        *_untuned(summary),
        _direct(summary),
    ]


def _untuned(summary: OverlaySummary) -> list[Finding]:
    """Verdict on both lenses as they are, which no choice of settings can turn round."""
    difference = summary.differences.get(UNTUNED_DIFFERENCE)
    if difference is None:
        return []
    areas = [summary.area(f"{lens}, plain{UNDECODED}") for lens in ("steering", "diffusion")]
    what = "The same before decoding and without tuning, each lens as it is"
    return [Finding(claim(what, difference, *areas, model=summary.model), headline=True)]


def _named(summary: OverlaySummary) -> str:
    return f" on {summary.model}" if summary.model else ""


def _better(area: Estimate, high: float) -> str:
    if not area.above():
        return "worse than random orders" if area.excludes_zero else "no better than random orders, as far as is shown"
    return f"better than {RANDOM_ORDERS} random orders" if area.value > high else "better than random orders on average"


def _direct(summary: OverlaySummary) -> Finding:
    undecoded, direct = summary.area(chosen_order("steering", UNDECODED)), summary.area(DIRECT)
    limit = ", the limit of a lens of direct contributions," if at_least(direct, undecoded) else ""
    return Finding(
        f"{on(summary.model, 'without decoding')}, the Steering Lens reaches an area of {interval(undecoded)}; the "
        f"exact direct effect{limit} reaches {interval(direct)}."
    )


def _overlap(summary: OverlaySummary, name: str, how: str = "decoded") -> str:
    """Verdict on the paper's claim of an overlap with the order of true single effects."""
    difference, one_shot, where = summary.differences[name], summary.area(ONE_SHOT), _named(summary)
    what = (
        "The paper's claim that the Steering Lens' trajectory overlaps with that of the ACDC-like order (heads sorted "
        f"by their true single effects, area {interval(one_shot)}), {how}"
    )
    if not difference.excludes_zero:
        return (
            f"{what}: **not contradicted**{where}; the paired difference of areas includes 0 ({interval(difference)})."
        )
    if difference.value > 0:
        return f"{what}: **surpassed**{where}; its area is larger (paired difference {interval(difference)})."
    return f"{what}: **not found**{where}; its area is smaller (paired difference {interval(difference)})."


def overlay_bars(summary: OverlaySummary) -> list[Bar]:
    """Figures of the study on the verdict page, with their bars."""
    areas = {row.name: row.area for row in summary.orders}
    what = "overlay: Steering Lens, normalised area (0 random order, 1 greedy reference)"
    bars: list[Bar] = []
    if (area := areas.get(chosen_order("steering"))) is not None:
        bars += [
            Bar(f"{what}, decoded", interval(area), "interval above 0", met(area.above())),
            *(
                Bar(f"{what}, decoded", interval(area), f"aim: {level:g}", aim(area, level))
                for level in (LEAST_AREA, OVERLAY_AIM)
            ),
        ]
    if (area := areas.get(chosen_order("steering", UNDECODED))) is not None:
        verdict = aim(area, LEAST_UNDECODED)
        bars.append(Bar(f"{what}, not decoded", interval(area), f"aim: {LEAST_UNDECODED:g}", verdict))
    for name in (CHANGE, NORM):
        if name in areas:
            what = f"overlay: {name}, which needs no lens"
            bars.append(Bar(what, interval(areas[name]), "reported", _beside(summary, name)))
    return bars


def _beside(summary: OverlaySummary, name: str) -> str:
    """How the undecoded order of the Steering Lens compares with a baseline."""
    difference = summary.differences.get(f"{chosen_order('steering', UNDECODED)}, minus {name}")
    if difference is None or not difference.excludes_zero:
        return "not told apart from the Steering Lens, not decoded"
    return "below the Steering Lens, not decoded" if difference.above() else "above the Steering Lens, not decoded"
