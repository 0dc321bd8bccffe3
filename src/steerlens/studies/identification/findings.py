"""Findings of the identification study in words, and its bar; the figures alone decide which sentence is printed."""

from steerlens.studies.identification.results import VIEW_WORDS, Identification, IdentificationSummary
from steerlens.studies.identification.scores import STEERING, STEERING_NEUTRAL
from steerlens.studies.shared.markdown import Bar, Finding, interval, met
from steerlens.studies.shared.stats import Estimate

CHANCE = 0.5
"""Share that guessing reaches."""

_BAR, _LOWEST = 0.70, 0.60
_LENS_WORDS = {
    STEERING: "Steering Lens",
    STEERING_NEUTRAL: "Steering Lens, neutral base",
    "diffusion": "Diffusion Lens",
}


def lens_words(lens: str) -> str:
    """Name of a lens for readers."""
    return _LENS_WORDS[lens]


def share(estimate: Estimate | None) -> str:
    """Formats a share with its 95 % interval, in percent."""
    if estimate is None or not estimate.defined:
        return "undefined"
    bounds = "" if estimate.low != estimate.low else f" [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"
    return f"{estimate.value:.0%}{bounds}"


def conclusion(model: str, main: Identification) -> str:
    """Main finding, in one sentence that names the model."""
    on, own = f"On {model or 'this pair'}", main.share
    figures = f"the own is closer in {share(own)} of the comparisons; guessing reaches 50%"
    if own.above(CHANCE):
        return f"{on}, decoded pictures carry what a head writes for this very picture: {figures}."
    if own.defined and own.high < CHANCE:
        return f"{on}, the own write is farther from the input more often than not: {figures}."
    return f"{on}, decoded pictures do not tell the own write from another picture's: {figures}."


def identification_findings(summary: IdentificationSummary) -> list[Finding]:
    """The finding in plain sentences, the comparison of lenses, and independent comparisons."""
    main, undecoded = summary.main, summary.row(STEERING, "requested")
    diffusion = summary.row("diffusion", "decoded")
    findings = [
        Finding(
            "For each head and picture, two pictures are decoded: one is steered with what the head wrote for this "
            "picture, one with what the *same head* wrote for another picture. Base, strength and noise are equal. "
            "Which of the two is closer to the input? Labels and sizes of writes play no part."
        ),
        Finding(f"**{summary.conclusion}**", headline=True),
        Finding(
            f"Before decoding it is {share(None if undecoded is None else undecoded.share)}: the rest is lost by the "
            f"decoder. A random direction, steered as strongly, is farther from the input than the own write in "
            f"{share(main.own_against_random)}, and than the other picture's write in "
            f"{share(main.foil_against_random)}.",
            headline=True,
        ),
    ]
    if diffusion is not None:
        better = "better than" if summary.difference.above() else "no better than"
        if summary.difference.excludes_zero and not summary.difference.above():
            better = "worse than"
        findings.append(
            Finding(
                f"The Steering Lens identifies the picture {better} the Diffusion Lens, which reaches "
                f"{share(diffusion.share)} (paired difference {interval(summary.difference)}).",
                headline=True,
            )
        )
    other = summary.row(STEERING, "decoded", "other")
    if other is not None:
        words = "holds" if other.share.above(CHANCE) else "does not hold"
        findings.append(
            Finding(
                "The input's embedding contains the own write, another picture of the same concept does not. Compared "
                f"with that one, the finding {words}: the own write is closer in {share(other.share)}."
            )
        )
    judged = summary.row(STEERING, "judged")
    if judged is not None:
        findings.append(Finding(f"As the outside judge sees the pictures: {share(judged.share)}."))
    return findings


def identification_bars(summary: IdentificationSummary) -> list[Bar]:
    """Share of own writes that are recognised, on the verdict page."""
    rows = [row for row in (summary.main, summary.row(STEERING, "requested")) if row is not None]
    what = "identification: own write closer to the input than the same head's write for another picture"
    return [
        Bar(
            f"{what}, {VIEW_WORDS[row.view]}",
            share(row.share),
            "70%, interval above 60%" if row is summary.main else "reported; chance is 50%",
            met(row.share.value >= _BAR and row.share.above(_LOWEST))
            if row is summary.main
            else "above chance"
            if row.share.above(CHANCE)
            else "NOT above chance",
        )
        for row in rows
    ]
