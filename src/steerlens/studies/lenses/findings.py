"""Findings of the study of candidate lenses in words, and its bars; the figures alone decide which is printed."""

from collections.abc import Sequence

from steerlens.studies.lenses.options import CONTRAST, PICTURE, RETRIEVAL
from steerlens.studies.lenses.results import NORM, LensesSummary, LensRow, TransferRow
from steerlens.studies.shared.conclusion import Claim, Conclusion, joined
from steerlens.studies.shared.markdown import Bar, Finding, interval

_HALF = 0.5
"""Transfer above which a decoder returns more of a change than it adds, roughly."""


def conclude(model: str, rows: Sequence[LensRow], transfer: Sequence[TransferRow]) -> Conclusion:
    """Plain sentences that name the model, and a next step."""
    decoded = {row.name: row for row in reversed(rows) if row.view == "requested"}
    decodes = any(row.name == PICTURE and row.view == "decoded" for row in rows)
    decoded |= {row.name: row for row in rows if row.view == "decoded"}
    on, own = f"On {model or 'this pair'}", decoded[PICTURE].correlation
    better = [
        row
        for name in (CONTRAST, RETRIEVAL)
        if (row := decoded.get(name)) is not None and row.over_picture is not None and row.over_picture.above()
    ]
    named = joined([f"{_plural(row.name)} ({interval(row.correlation)})" for row in better])
    first = f"{on}, no other lens says better than one picture ({interval(own)}) which names a head adds."
    if better:
        first = f"{on}, {named} say better than one picture ({interval(own)}) which names a head adds."
    heads = next((row for row in transfer if row.kind == "head"), None)
    scene = next((row for row in reversed(transfer) if row.kind == "scene"), None)
    others = [row for name in (CONTRAST, RETRIEVAL) if (row := decoded.get(name)) is not None]
    each = joined([f"{_plural(row.name)} {interval(row.correlation)}" for row in others])
    if not decodes:
        first = first.removesuffix(".") + ", before decoding."
    sentences = [first, f"Rank correlations with the effect on any name, over heads: {each}."] if others else [first]
    if heads is not None and scene is not None:
        sentences.append(
            f"The decoder returns little of a change along a head's write (cosine {interval(heads.transfer)})"
            if heads.transfer.high < _HALF
            else f"The decoder returns much of a change along a head's write (cosine {interval(heads.transfer)})"
        )
        sentences[-1] += f"; for a whole step to another scene it is {interval(scene.transfer)}."
    best = max(better, key=lambda row: row.correlation.value, default=None)
    step = "Read single pictures with care, and compare several seeds."
    if best is not None:
        step = f"Show heads by {best.name}, with the setting {best.setting}."
    if not decodes:
        step = "Decode: run the study with a pair whose decoder reads this embedding."
    return Conclusion(tuple(sentences), step)


def _plural(name: str) -> str:
    return f"{name}s" if name == CONTRAST else name


def lenses_claims(summary: LensesSummary) -> list[Claim]:
    """Claims that are compared between models."""
    claims: list[Claim] = []
    for name in (PICTURE, CONTRAST, RETRIEVAL):
        row = summary.row(name)
        if row is not None:
            how = ", before decoding" if row.view == "requested" else ""
            claims.append(Claim(f"{name}: shows which names a head adds{how}", row.correlation))
            if row.over_picture is not None:
                than = "" if summary.decodes else ", before decoding"
                claims.append(Claim(f"{name}: shows it better than one picture{than}", row.over_picture))
    heads = next((row for row in summary.transfer if row.kind == "head"), None)
    if heads is not None:
        claims.append(
            Claim("the decoder returns a change along a head's write (cosine above 0.5)", heads.transfer, _HALF)
        )
    return claims


def lenses_findings(summary: LensesSummary) -> list[Finding]:
    """The finding in plain sentences; the baseline; and the judge's view."""
    norm, contrast, retrieval = (summary.row(name) for name in (NORM, CONTRAST, RETRIEVAL))
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
    if norm is not None:
        beaten = [row.name for row in (summary.picture, contrast, retrieval) if row is not None and _beats(row)]
        findings.append(
            Finding(
                f"The norm of the write, which needs no picture, reaches {interval(norm.correlation)}; "
                f"{joined(beaten) if beaten else 'no lens'} {'do' if len(beaten) > 1 else 'does'} better.",
                headline=True,
            )
        )
    findings += [Finding(sentence, headline=True) for sentence in others]
    if retrieval is None:
        findings.append(Finding("Real pictures were left out, since there was no bank."))
    findings.append(
        Finding(
            f"Measured on {summary.n_pictures} pictures, {summary.n_studied} of {summary.n_heads} heads and "
            f"{summary.n_names} names; 95 % intervals in brackets.",
            headline=True,
        )
    )
    judged = [row for row in summary.rows if row.view == "judged"]
    if judged:
        words = ", ".join(f"{interval(row.correlation)} for {row.name}" for row in judged)
        findings.append(Finding(f"As the outside judge sees the pictures ({summary.n_judged} names): {words}."))
    return findings


def _beats(row: LensRow) -> bool:
    return row.over_norm is not None and row.over_norm.above()


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
