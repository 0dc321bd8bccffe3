"""Numbers, intervals and tables as markdown; findings and bars of the pages of results."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from steerlens.studies.shared.attenuation import Attenuation
from steerlens.studies.shared.judge import JudgeName
from steerlens.studies.shared.stats import Estimate, caution


@dataclass(frozen=True)
class Bar:
    """A measured figure, compared with a bar.

    Attributes:
        what: the figure, in words.
        value: its value, as text.
        bar: the bar, as text.
        verdict: result of the comparison, as text.
    """

    what: str
    value: str
    bar: str
    verdict: str

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """Cells of a table row."""
        return self.what, self.value, self.bar, self.verdict


@dataclass(frozen=True)
class Finding:
    """A finding of a study, in words.

    Attributes:
        text: markdown.
        headline: True to repeat it on the verdict page; the study's own page lists all findings.
    """

    text: str
    headline: bool = False


def met(reached: bool) -> str:
    """Verdict on a bar."""
    return "met" if reached else "MISSED"


def on(model: str, words: str) -> str:
    """A verdict that names its model, which may be empty; `words` start with a small letter."""
    return f"On {model}, {words}" if model else f"{words[:1].upper()}{words[1:]}"


def aim(estimate: Estimate, level: float) -> str:
    """Verdict on an aim, which is no condition of a release; says so if the interval reaches below it."""
    if not estimate.value >= level:
        return "aim MISSED"
    return "aim met" if estimate.low >= level else "aim met by point estimate alone"


def interval(estimate: Estimate | None) -> str:
    """Formats an estimate with its 95 % interval."""
    if estimate is None or not estimate.defined:
        return "undefined"
    bounded = math.isfinite(estimate.low) and math.isfinite(estimate.high)
    bounds = f" [{estimate.low:+.2f}, {estimate.high:+.2f}]" if bounded else ""
    return f"{estimate.value:+.2f}{bounds}"


def at_least(first: Estimate, second: Estimate) -> bool:
    """True if an estimate is defined and no smaller than another."""
    return first.value >= second.value


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats a markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def signed(value: float) -> str:
    """Formats a number with its sign; empty if it is undefined."""
    return "" if math.isnan(value) else f"{value:+.2f}"


def percent(estimate: Estimate) -> str:
    """Formats an estimate of a share."""
    return f"{estimate.value:.0%}" if estimate.defined else "undefined"


def figure(caption: str, name: str) -> str:
    """Links a figure from the study's page.

    Args:
        caption: caption of the figure.
        name: `STUDY-FIGURE`, the name of its file.
    """
    return f"![{caption}](../images/studies/{name}.png)\n"


def resampled(count: int, what: str = "concepts") -> str:
    """Sentence on the bootstrap of the intervals, with a warning if it drew from few concepts."""
    warning = caution(count, what)
    return "95 % intervals: bootstrap over concepts and heads." + (f" **{warning.capitalize()}.**" if warning else "")


def judged_by(judge: JudgeName | None) -> list[str]:
    """Sentence on the outside judge; empty without a judge."""
    if judge is None:
        return []
    return [f"*Judged* scores use embeddings of an outside encoder, {judge.name} (weights {judge.sha256[:12]}).\n"]


def claim(
    what: str, difference: Estimate, own: Estimate, other: Estimate, *, alone: bool = False, model: str = ""
) -> str:
    """Verdict on the claim that the Steering Lens shows an effect, and shows it better than the Diffusion Lens.

    It is confirmed if both the paired difference and the Steering Lens' own figure lie above 0; the reverse is found
    if the same holds for the Diffusion Lens.

    Args:
        what: the claim.
        difference: Steering Lens minus Diffusion Lens.
        own: the Steering Lens' own figure.
        other: the Diffusion Lens' own figure.
        alone: True if the claim also says that the Diffusion Lens shows hardly anything: its figure may not lie above
            0.
        model: name of the studied model, which the verdict repeats.
    """
    sides = f"Steering Lens {interval(own)}, Diffusion Lens {interval(other)}, paired difference {interval(difference)}"
    if not difference.excludes_zero:
        verdict, why = "not found", "the difference includes 0"
    elif not difference.above():
        verdict, why = "the reverse was found", "the Diffusion Lens does better"
        if not other.above():
            verdict, why = "not found", "the difference lies below 0, but the Diffusion Lens' figure is not above 0"
    elif not own.above():
        verdict, why = "not found", "the difference lies above 0, but the Steering Lens' figure does not"
    elif alone and other.above():
        verdict, why = "found in part", "the Steering Lens does better, but the Diffusion Lens shows the effect too"
    else:
        verdict, why = "found", "the Steering Lens' figure and the difference both lie above 0"
    on = f" on {model}" if model else ""
    return f"{what}: **{verdict}**{on}; {why} ({sides})."


def lost(row: Attenuation, effect: str, remark: str = "") -> list[str]:
    """Sentences on a ranking that decoding loses; empty unless pictures do clearly worse than requested embeddings.

    Args:
        row: row of the attenuation table.
        effect: the effect with which scores are correlated, in words.
        remark: qualification of the undecoded score.
    """
    requested, decoded = row.requested, row.decoded
    if not requested.above() or math.isnan(decoded.high) or requested.low <= decoded.high:
        return []
    words = (
        f"Decoding {'loses part of' if decoded.above() else 'loses'} the ranking. The Spearman correlation over heads "
        f"with {effect} is {interval(requested)} for the requested embedding{remark}, and {interval(decoded)} for the "
        f"decoded picture. The two scores correlate by {interval(row.agreement)}, and pictures have a fidelity of "
        f"{interval(row.fidelity)}. A decoder that only added noise would leave "
        f"{signed(requested.value)} x {signed(row.agreement.value)} = {signed(row.expected)}."
    )
    noise = row.without_noise
    if math.isnan(noise):
        return [words]
    words += f" Without the noise of seeds, the picture's correlation would be about {signed(noise)}"
    if noise - decoded.value < requested.value - noise:
        return [f"{words}: more seeds would recover the smaller part of the loss; the decoder causes the larger part."]
    return [f"{words}: more seeds might recover most of the loss."]


def attenuation_table(rows: Sequence[Attenuation], effect: str, names: Mapping[str, str] | None = None) -> str:
    """Formats a table of every lens score before and after decoding.

    Args:
        rows: the scores.
        effect: the effect with which scores are correlated, in words.
        names: names of scores for readers, where they differ.
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
        f"Spearman correlations over heads with {effect}, for the same setting before and after decoding. The product "
        "is the correlation that a decoder would leave if it only added noise; *without seed noise* divides by the "
        "root of the reliability:\n\n" + table(headings, cells)
    )


class HasCandidates(Protocol):
    """A choice that records the candidates."""

    @property
    def candidates(self) -> Mapping[str, float]:
        """Figure of every candidate, by name."""
        ...


def candidates_table(choices: Mapping[str, HasCandidates], what: str) -> str:
    """Formats a table of all candidate settings of each lens, best first."""
    rows = [
        [lens, name, signed(value)]
        for lens, choice in choices.items()
        for name, value in sorted(choice.candidates.items(), key=lambda item: 2.0 if math.isnan(item[1]) else -item[1])
    ]
    return table(["lens", "candidate", what], rows)
