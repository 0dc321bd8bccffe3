"""Conclusion of the identification study in plain sentences, and its claims; the figures alone decide the words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steerlens.studies.identification.scores import STEERING, STEERING_NEUTRAL
from steerlens.studies.shared.conclusion import Claim, Conclusion, cautioned, joined
from steerlens.studies.shared.stats import Estimate
from steerlens.studies.shared.targets import OTHER

if TYPE_CHECKING:
    from steerlens.studies.identification.results import Identification, IdentificationSummary

CHANCE = 0.5
"""Share that guessing reaches."""

BAR, LOWEST = 0.70, 0.60
"""Share that lets one say that pictures carry what a head writes for a picture, and the least end of its interval."""

_LENS_WORDS = {
    STEERING: "Steering Lens",
    STEERING_NEUTRAL: "Steering Lens, neutral base",
    "diffusion": "Diffusion Lens",
}


def lens_words(lens: str) -> str:
    """Name of a lens for readers."""
    return _LENS_WORDS[lens]


def share(estimate: Estimate | None) -> str:
    """Formats a share with its 95 % interval, in percent; with a decimal if rounding would hide the side of chance."""
    if estimate is None or not estimate.defined:
        return "undefined"
    bounded = estimate.low == estimate.low
    ends = (estimate.low, estimate.high) if bounded else ()
    close = any(end != CHANCE and round(100 * end) == 100 * CHANCE for end in ends)
    digits = 1 if close else 0
    bounds = f" [{100 * estimate.low:.{digits}f}, {100 * estimate.high:.{digits}f}]" if bounded else ""
    return f"{100 * estimate.value:.{digits}f}%{bounds}"


def reaches_bar(estimate: Estimate) -> bool:
    """True if a share is at least 70 %, with an interval above 60 %."""
    return estimate.defined and estimate.value >= BAR and estimate.above(LOWEST)


def identification_conclusion(summary: "IdentificationSummary") -> Conclusion:
    """Concludes from the share of own writes that are closer to the input; names what limits it, and where it lies."""
    main, undecoded = summary.main, summary.row(STEERING, "requested")
    decoded, own = bool(summary.seeds), main.share
    sentences = [_verdict(summary), _limit(summary, undecoded or main)]
    sentences.append(_other_lens(summary))
    if main.own_against_random is not None and main.foil_against_random is not None:
        sentences.append(_against_random(main.own_against_random, main.foil_against_random))
    if (other := summary.row(STEERING, summary.main_view, OTHER)) is not None:
        sentences.append(_of_the_concept(other.share))
    step = "decode: run the study with a pair whose decoder reads this embedding."
    if decoded:
        step = "do not read single heads' pictures of this pair."
        if own.above(CHANCE) and not _hardly(own):
            step = "in reports, compare each head's picture with its foil (steerlens lens --foils 1), head by head."
    return Conclusion(tuple(sentences), step, together=1 if reaches_bar(own) else 2)


def _hardly(own: Estimate) -> bool:
    """True of a share above guessing whose whole interval lies below 60 %: too little to read a head's picture."""
    return own.above(CHANCE) and own.high < LOWEST


def _verdict(summary: "IdentificationSummary") -> str:
    own, what = summary.main.share, "decoded pictures" if summary.seeds else "steered embeddings"
    carried = "what a head writes for this very picture"
    if not own.defined:
        verdict = f"it is not known whether {what} carry {carried}"
    elif reaches_bar(own):
        verdict = f"{what} carry {carried}"
    elif own.above(LOWEST):
        verdict = f"{what} carry something of {carried}, but not enough to read single pictures"
    elif own.above(CHANCE):
        amount = "hardly carry" if _hardly(own) else "carry little of"
        verdict = f"{what} {amount} {carried}"
    elif own.high < CHANCE:
        verdict = "the own write is farther from the input more often than not"
    else:
        verdict = f"{what} are not shown to carry {carried}"
    return (
        f"On {summary.model or 'this pair'}, {verdict}: the own write is closer to the input than the same head's "
        f"write for another picture in {share(own)} of the comparisons (guessing: 50%), and the bar, 70% with an "
        f"interval above 60%, is {'met' if reaches_bar(own) else 'missed'}."
    )


def _limit(summary: "IdentificationSummary", undecoded: "Identification") -> str:
    """Whether decoding is the limit, and in which layers the bar is reached before decoding."""
    layers, before = _reaching(summary.layers, undecoded.by_layer), undecoded.share
    if not summary.seeds:
        return f"Nothing was decoded; a decoder that returned the requested embedding would show the same; {layers}."
    if reaches_bar(summary.main.share):
        return f"Before decoding it is {share(before)}; {layers}."
    if reaches_bar(before):
        return f"The decoder is the limit: before decoding it is {share(before)}, and {layers}."
    if before.high < BAR:
        return (
            "The decoder is not the limit, since one that returned the requested embedding would not reach the bar "
            f"either: before decoding it is {share(before)}, and {layers}."
        )
    return f"Before decoding it is {share(before)}, which leaves open whether the decoder is the limit; {layers}."


def _reaching(layers: Sequence[int], shares: Sequence[Estimate]) -> str:
    """Layers that reach the bar by themselves, in words."""
    rows = list(zip(layers, shares, strict=True))
    above = [(layer, estimate) for layer, estimate in rows if reaches_bar(estimate)]
    below = [estimate.value for _, estimate in rows if not reaches_bar(estimate)]
    if not above:
        return "no layer reaches 70% by itself"
    if not below:
        return "every layer reaches 70% by itself"
    others = f"{100 * min(below):.0f}% to {100 * max(below):.0f}%"
    if len(above) == 1:
        layer, estimate = above[0]
        return f"only layer {layer} reaches 70% ({share(estimate)}), while the others have {others}"
    if len(above) <= len(rows) // 2:
        named = joined([str(layer) for layer, _ in above])
        return f"only layers {named} reach 70%, while the others have {others}"
    return f"{len(above)} of {len(rows)} layers reach 70% by themselves"


def layers_words(summary: "IdentificationSummary") -> str:
    """Layers of the main row whose own interval lies above chance, in a sentence."""
    main, layers = summary.main, summary.layers
    above = [layer for layer, estimate in zip(layers, main.by_layer, strict=True) if estimate.above(CHANCE)]
    where = "In pictures" if summary.seeds else "Before decoding"
    if not above:
        return f"{where}, no single layer lies above guessing."
    if len(above) == len(layers):
        least = min(main.by_layer, key=lambda layer: layer.value)
        return f"{where}, every layer lies above guessing, from {share(least)} on."
    named = joined([str(layer) for layer in above])
    words = f"{where}, {len(above)} of {len(layers)} layers {'lies' if len(above) == 1 else 'lie'} above guessing by "
    words += f"{'itself' if len(above) == 1 else 'themselves'}: {named}"
    if len(above) == 1 < len(layers):
        return f"{words}. Of {len(layers)} layers tested, one may do so by chance."
    return f"{words}. The intervals are not corrected for the {len(layers)} layers tested."


def _other_lens(summary: "IdentificationSummary") -> str:
    alone = summary.row("diffusion", summary.main_view)
    reached = "" if alone is None else f" ({share(alone.share)})"
    return f"The Steering Lens identifies the picture {compared(summary.difference)} the Diffusion Lens{reached}."


def _against_random(own: Estimate, foil: Estimate) -> str:
    """The isotropic control: how much of the closeness is common to all writes of a head."""
    if foil.above(CHANCE):
        common = "so part of the closeness is what the head writes for any picture"
    elif own.above(CHANCE):
        common = "so no part of it is shown to be common to all writes"
    else:
        common = "so no closeness is shown"
    return (
        f"A random direction, steered as strongly, is farther from the input than the own write in {share(own)}, and "
        f"than the other picture's write in {share(foil)}, {common}."
    )


def _of_the_concept(other: Estimate) -> str:
    """Comparison with another picture of the concept, whose embedding has not the own write as a summand."""
    shown = "so it points to the concept, too" if other.above(CHANCE) else "so it is not shown to point to the concept"
    return (
        "The input's embedding contains the own write as a summand. To another picture of the same concept, which does "
        f"not contain it, the own write is closer in {share(other)}, {shown}."
    )


def compared(difference: Estimate) -> str:
    """Comparison of two lenses, in words."""
    if not difference.excludes_zero:
        return "not measurably better or worse than"
    return "better than" if difference.above() else "worse than"


def identification_claims(summary: "IdentificationSummary") -> list[Claim]:
    """Claims that are compared between models."""
    what = "A head's own write is closer to the input than the same head's write for another picture, in more than"
    rows = [
        (summary.row(STEERING, view), how)
        for view, how in (("requested", "before decoding"), ("decoded", "in pictures"))
    ]
    claims: list[Claim] = []
    for row, how in rows:
        if row is not None:
            claims.append(Claim(f"{what} half of the comparisons", row.share, CHANCE, how, leading=True))
            claims.append(Claim(f"{what} 70 % of the comparisons", row.share, BAR, how, leading=True))
    how = "in pictures" if summary.seeds else "before decoding"
    other = summary.row(STEERING, summary.main_view, OTHER)
    if other is not None:
        words = (
            "A head's own write is closer to another picture of the input's concept than the same head's write for a "
            "picture of another concept, in more than half of the comparisons"
        )
        claims.append(Claim(words, other.share, CHANCE, how))
    words = "The Steering Lens tells from which input a head's write came, more often than the Diffusion Lens does"
    claims.append(Claim(words, summary.difference, 0.0, how))
    return cautioned(claims, summary.n_concepts)
