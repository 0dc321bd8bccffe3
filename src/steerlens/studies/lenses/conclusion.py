"""Conclusion of the study of candidate lenses in plain sentences, and its claims; figures decide the words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steerlens.studies.lenses.options import CONTRAST, PICTURE, RETRIEVAL
from steerlens.studies.shared.conclusion import Claim, Conclusion, cautioned, joined
from steerlens.studies.shared.markdown import interval

if TYPE_CHECKING:
    from steerlens.studies.lenses.results import LensesSummary, LensRow

NORM, LAYER = "norm of the write", "layer of the head"
"""Baselines with one score for all names: near 0 by construction, since directions of names are centred."""

_HALF = 0.5
"""Transfer above which a decoder returns more of a change than it adds, roughly."""

_PICTURES = {
    PICTURE: "One steered picture of a head",
    CONTRAST: "A contrast pair of a head's pictures",
    RETRIEVAL: "Real pictures along the change that a head makes",
}


def lenses_conclusion(summary: "LensesSummary") -> Conclusion:
    """Concludes from the correlation of each lens with the effects on names."""
    rows = [row for name in (CONTRAST, RETRIEVAL) if (row := summary.row(name)) is not None]
    better = [row for row in rows if row.over_picture is not None and row.over_picture.above()]
    sentences = [_verdict(summary, better)]
    if rows:
        each = joined([f"{_plural(row.name)} {interval(row.correlation)}" for row in rows])
        sentences.append(f"Rank correlations with the effect on any name, over heads: {each}.")
    sentences += [*_before(summary), *_transfer(summary), _measured(summary)]
    best = max(better, key=lambda row: row.correlation.value, default=None)
    step = "do not read names from pictures of this pair's heads."
    if summary.picture.correlation.above():
        step = "read single pictures with care, and compare several seeds."
    if best is not None and best.correlation.above():
        step = f"show heads by {best.name}, with the setting {best.setting}."
    if not summary.decodes:
        step = "decode: run the study with a pair whose decoder reads this embedding."
    return Conclusion(tuple(sentences), step)


def _verdict(summary: "LensesSummary", better: "Sequence[LensRow]") -> str:
    """Which lens says best which names a head adds."""
    on, own = f"On {summary.model or 'this pair'}", summary.picture.correlation
    how = "" if summary.decodes else ", before decoding"
    if not better:
        return (
            f"{on}{how}, no other lens is shown to say better than one picture ({interval(own)}) which names a head "
            "adds."
        )
    named = joined([f"{_plural(row.name)} ({interval(row.correlation)})" for row in better])
    return f"{on}{how}, {named} say better than one picture ({interval(own)}) which names a head adds."


def _before(summary: "LensesSummary") -> list[str]:
    """What the requested embeddings of decoded lenses tell; nothing without a decoder."""
    rows = [row for name in (PICTURE, CONTRAST) if (row := summary.row(name, "requested")) is not None]
    if not summary.decodes or not rows:
        return []
    each = joined([f"{_plural(row.name)} {interval(row.correlation)}" for row in rows])
    return [
        f"Before decoding, which is what a decoder that returned the requested embedding would show, they are: {each}."
    ]


def _transfer(summary: "LensesSummary") -> list[str]:
    """How much of a change comes back from the decoder; nothing without one."""
    heads = next((row for row in summary.transfer if row.kind == "head"), None)
    scene = next((row for row in reversed(summary.transfer) if row.kind == "scene"), None)
    if heads is None or scene is None:
        return []
    amount = "some"
    if heads.transfer.excludes(_HALF):
        amount = "much" if heads.transfer.above(_HALF) else "little"
    return [
        f"The decoder returns {amount} of a change along a head's write (cosine {interval(heads.transfer)}); for a "
        f"whole step to another scene it is {interval(scene.transfer)}."
    ]


def _measured(summary: "LensesSummary") -> str:
    return (
        f"Measured on {summary.n_pictures} pictures, {summary.n_studied} of {summary.n_heads} heads and "
        f"{summary.n_names} names; 95 % intervals in brackets."
    )


def _plural(name: str) -> str:
    return f"{name}s" if name == CONTRAST else name


def lenses_claims(summary: "LensesSummary") -> list[Claim]:
    """Claims that are compared between models."""
    claims: list[Claim] = []
    for name in (PICTURE, CONTRAST, RETRIEVAL):
        row = summary.row(name)
        if row is None:
            continue
        show, what = ("shows", _PICTURES[name]) if name != RETRIEVAL else ("show", _PICTURES[name])
        how = "" if name == RETRIEVAL else "before decoding" if row.view == "requested" else "in pictures"
        claims.append(Claim(f"{what} {show} which names the head adds", row.correlation, 0.0, how, name == PICTURE))
        if row.over_picture is not None:
            better = f"{what} {show} which names the head adds, better than one picture does"
            claims.append(Claim(better, row.over_picture, 0.0, how, leading=True))
    heads = next((row for row in summary.transfer if row.kind == "head"), None)
    if heads is not None:
        what = "The decoder returns a change along a head's write, with a cosine above 0.5"
        claims.append(Claim(what, heads.transfer, _HALF))
    return cautioned(claims, summary.n_concepts)
