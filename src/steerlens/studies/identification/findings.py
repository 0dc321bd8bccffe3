"""Findings of the identification study in words, and its bar; the figures alone decide which sentence is printed."""

from steerlens.studies.identification.conclusion import CHANCE, layers_words, reaches_bar, share
from steerlens.studies.identification.results import IdentificationSummary
from steerlens.studies.identification.scores import STEERING
from steerlens.studies.shared.markdown import Bar, Finding, met


def identification_findings(summary: IdentificationSummary) -> list[Finding]:
    """The finding in plain sentences, controls, and independent comparisons."""
    first, *others = summary.conclusion.sentences
    kind = "pictures are decoded" if summary.seeds else "embeddings are compared"
    findings = [
        Finding(
            f"For each head and picture, two {kind}: one is steered with what the head wrote for this picture, one "
            "with what the *same head* wrote for another picture. Everything else is equal. Which of the two is closer "
            "to the input? Labels and sizes of writes play no part."
        ),
        Finding(f"**{first}**", headline=True),
        *(Finding(sentence, headline=True) for sentence in others),
        Finding(layers_words(summary), headline=True),
    ]
    judged = summary.row(STEERING, "judged")
    if judged is not None:
        findings.append(Finding(f"As the outside judge sees the pictures: {share(judged.share)}."))
    return findings


def identification_bars(summary: IdentificationSummary) -> list[Bar]:
    """Share of own writes that are recognised, on the verdict page."""
    what = "identification: own write closer to the input than the same head's write for another picture"
    decoded, undecoded = (summary.row(STEERING, view) for view in ("decoded", "requested"))
    bars: list[Bar] = []
    if decoded is not None:
        reached = met(reaches_bar(decoded.share))
        bars.append(Bar(f"{what}, decoded", share(decoded.share), "70%, interval above 60%", reached))
    if undecoded is not None:
        verdict = "above chance" if undecoded.share.above(CHANCE) else "NOT above chance"
        bars.append(Bar(f"{what}, not decoded", share(undecoded.share), "reported; chance is 50%", verdict))
    return bars
