"""Numbers, intervals and tables as markdown, and the findings and bars of the page of results."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from steerlens.studies.shared.attenuation import Attenuation
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.stats import Estimate, caution


@dataclass(frozen=True)
class Bar:
    """A figure that was measured against a bar.

    Attributes:
        what: the figure, in words.
        value: as text.
        bar: as text.
        verdict: whether it is met.
    """

    what: str
    value: str
    bar: str
    verdict: str

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The row of a table."""
        return self.what, self.value, self.bar, self.verdict


@dataclass(frozen=True)
class Finding:
    """A sentence on what a study found.

    Attributes:
        text: markdown.
        headline: whether the verdict page repeats it; the study's own page holds all findings.
    """

    text: str
    headline: bool = False


def met(reached: bool) -> str:
    """The verdict on a bar."""
    return "met" if reached else "MISSED"


def aim(reached: bool) -> str:
    """The verdict on an aim, which no release waits for."""
    return "aim met" if reached else "aim MISSED"


def interval(estimate: Estimate | None) -> str:
    """An estimate with its 95 % interval, as text."""
    if estimate is None or not estimate.defined:
        return "undefined"
    bounded = math.isfinite(estimate.low) and math.isfinite(estimate.high)
    bounds = f" [{estimate.low:+.2f}, {estimate.high:+.2f}]" if bounded else ""
    return f"{estimate.value:+.2f}{bounds}"


def at_least(first: Estimate, second: Estimate) -> bool:
    """Whether an estimate is no smaller than another, both being defined."""
    return first.value >= second.value


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def signed(value: float) -> str:
    """A number with its sign, or nothing where it is undefined."""
    return "" if math.isnan(value) else f"{value:+.2f}"


def percent(estimate: Estimate) -> str:
    """An estimate of a share, as text."""
    return f"{estimate.value:.0%}" if estimate.defined else "undefined"


def figure(caption: str, name: str) -> str:
    """A figure of a study, from the study's own page.

    Args:
        caption: in words.
        name: `STUDY-FIGURE`, as the page of results keeps it.
    """
    return f"![{caption}](../images/studies/{name}.png)\n"


def resampled(count: int, what: str = "concepts") -> str:
    """A sentence on what intervals resample, with a warning where there is little of it."""
    warning = caution(count, what)
    return "Intervals resample concepts and heads (95 %)." + (f" **{warning.capitalize()}.**" if warning else "")


def judged_by(judge: JudgeName | None) -> list[str]:
    """A sentence on the outside judge, if there was one."""
    if judge is None:
        return []
    return [f"*Judged*: by an outside encoder, {judge.name} (weights {judge.sha256[:12]}).\n"]


def claim(what: str, difference: Estimate, own: Estimate, other: Estimate, *, alone: bool = False) -> str:
    """A verdict on whether the Steering Lens tells something, and more of it than the Diffusion Lens.

    The claim needs both: the paired difference must lie above 0, and so must the Steering Lens' own figure; the
    reverse needs the same of the Diffusion Lens.

    Args:
        what: the claim.
        difference: Steering Lens minus Diffusion Lens.
        own: the Steering Lens' own figure.
        other: the Diffusion Lens' own figure.
        alone: whether the claim is that the Diffusion Lens tells hardly anything: its figure may not lie above 0.
    """
    sides = f"Steering Lens {interval(own)}, Diffusion Lens {interval(other)}, paired difference {interval(difference)}"
    if not difference.excludes_zero:
        verdict, why = "not found", "the difference includes 0"
    elif not difference.above():
        verdict, why = "the reverse was found", "the Diffusion Lens does better"
        if not other.above():
            verdict, why = "not found", "the difference lies below 0, and neither lens' own figure above it"
    elif not own.above():
        verdict, why = "not found", "the difference lies above 0, but the Steering Lens' own figure does not"
    elif alone and other.above():
        verdict, why = "found in part", "the Steering Lens tells more, but the Diffusion Lens tells it too"
    else:
        verdict, why = "found", "the Steering Lens' own figure and the difference both lie above 0"
    return f"{what}: **{verdict}**; {why} ({sides})."


def lost(row: Attenuation, effect: str, remark: str = "") -> list[str]:
    """Sentences on a ranking that decoding loses: where pictures say clearly less than the requested embeddings.

    Args:
        row: of the attenuation table.
        effect: what scores are correlated with, in words.
        remark: a qualification of the undecoded score.
    """
    requested, decoded = row.requested, row.decoded
    if not requested.above() or math.isnan(decoded.high) or requested.low <= decoded.high:
        return []
    words = (
        f"Effect of decoding, by Spearman correlations over heads with {effect}: the requested embedding holds the "
        f"ranking ({interval(requested)}{remark}), the picture has {'partly ' if decoded.above() else ''}lost it "
        f"({interval(decoded)}). Decoded and undecoded scores agree to {interval(row.agreement)}, and pictures come "
        f"back with a fidelity of {interval(row.fidelity)}. A decoder that only added noise would leave "
        f"{signed(requested.value)} x {signed(row.agreement.value)} = {signed(row.expected)}."
    )
    noise = row.without_noise
    if math.isnan(noise):
        return [words]
    words += f" Without the noise of seeds the picture's correlation would be about {signed(noise)}"
    if noise - decoded.value < requested.value - noise:
        return [f"{words}: more seeds would recover the smaller part, the decoder itself loses the larger."]
    return [f"{words}: more seeds might recover most of it."]


def attenuation_table(rows: Sequence[Attenuation], effect: str, names: Mapping[str, str] | None = None) -> str:
    """A table of every lens score before and after decoding.

    Args:
        rows: the scores.
        effect: what scores are correlated with, in words.
        names: of scores for readers, where they differ.
    """
    cells = [
        [
            (names or {}).get(row.score, row.score),
            interval(row.requested),
            interval(row.agreement),
            signed(row.expected),
            interval(row.decoded),
            signed(row.without_noise),
            interval(row.fidelity),
            f"{row.spread_requested:.3f} / {row.spread_decoded:.3f}",
        ]
        for row in rows
    ]
    headings = ["score", "not decoded", "decoded with not decoded", "product", "decoded", "without seed noise"]
    headings += ["fidelity", "spread over heads, not decoded / decoded"]
    return (
        f"Where a ranking is lost (Spearman over heads with {effect}; the same setting before and after decoding; the "
        "product is what a decoder that only added noise would leave; *without seed noise* divides by the root of the "
        "reliability):\n\n" + table(headings, cells)
    )


class HasCandidates(Protocol):
    """A choice that remembers what it was made from."""

    @property
    def candidates(self) -> Mapping[str, float]:
        """The figure of every candidate, by its name."""
        ...


def candidates_table(choices: Mapping[str, HasCandidates], what: str) -> str:
    """A table of all settings from which each lens was chosen, best first."""
    rows = [
        [lens, name, signed(value)]
        for lens, choice in choices.items()
        for name, value in sorted(choice.candidates.items(), key=lambda item: 2.0 if math.isnan(item[1]) else -item[1])
    ]
    return table(["lens", "candidate", what], rows)
