"""Findings of the study of candidate lenses in words, and its bars; the figures alone decide which is printed."""

from steerlens.studies.lenses.options import CONTRAST, PICTURE, RETRIEVAL
from steerlens.studies.lenses.results import LensesSummary
from steerlens.studies.shared.markdown import Bar, Finding, interval


def lenses_findings(summary: LensesSummary) -> list[Finding]:
    """The finding in plain sentences, and the judge's view."""
    retrieval = summary.row(RETRIEVAL)
    first, *others = summary.conclusion.sentences
    findings = [
        Finding(
            "If a head is ablated, the embedding loses some names and gains others. A picture of the head should show "
            "which. Three ways of showing it are compared: one steered picture; a contrast pair, steered along the "
            "write and against it, of which only the difference counts; and real pictures, those nearest to the "
            "changed embedding and those nearest to the opposite change. Each was tuned on other pictures."
        ),
        Finding(f"**{first}**", headline=True),
    ]
    findings += [Finding(sentence, headline=True) for sentence in others]
    if retrieval is None:
        findings.append(Finding("Real pictures were left out, since there was no bank."))
    judged = [row for row in summary.rows if row.view == "judged"]
    if judged:
        words = ", ".join(f"{interval(row.correlation)} for {row.name}" for row in judged)
        findings.append(Finding(f"As the outside judge sees the pictures ({summary.n_judged} names): {words}."))
    return findings


def lenses_bars(summary: LensesSummary) -> list[Bar]:
    """Correlation of each lens with effects towards names, on the verdict page."""
    bars: list[Bar] = []
    for name in (PICTURE, CONTRAST, RETRIEVAL):
        row = summary.row(name)
        if row is not None:
            over = row.over_picture
            verdict = "" if over is None else "better than one picture" if over.above() else "no better"
            difference = "" if over is None else f" ({interval(over)} over one picture)"
            how = ", not decoded" if row.view == "requested" else ""
            what = f"lenses: correlation of {name} with the effect on any name, {row.setting}{how}"
            bars.append(Bar(what, f"{interval(row.correlation)}{difference}", "reported", verdict))
    return bars
