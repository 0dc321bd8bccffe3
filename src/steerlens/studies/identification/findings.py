"""Findings of the identification study in words, and its bar; the figures alone decide which sentence is printed."""

from collections.abc import Sequence

from steerlens.studies.identification.results import Identification, IdentificationSummary
from steerlens.studies.identification.scores import STEERING, STEERING_NEUTRAL
from steerlens.studies.shared.conclusion import SENTENCES, Claim, Conclusion, joined
from steerlens.studies.shared.markdown import Bar, Finding, met
from steerlens.studies.shared.stats import Estimate
from steerlens.studies.shared.targets import OTHER

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


def conclude(
    model: str,
    main: Identification,
    undecoded: Identification,
    alone: Identification,
    difference: Estimate,
    layers: Sequence[int],
    other: Identification | None = None,
) -> Conclusion:
    """Plain sentences that name the model, and a next step.

    Args:
        model: name of the pair.
        main: the Steering Lens, decoded if anything was.
        undecoded: the same before decoding.
        alone: the Diffusion Lens, in the view of the main row.
        difference: Steering Lens minus Diffusion Lens.
        layers: layers of the studied heads.
        other: the main row compared with another picture of the same concept, if every input has one.
    """
    decoded, own = main.view == "decoded", main.share
    on, what = f"On {model or 'this pair'}", "decoded pictures" if decoded else "steered embeddings"
    figures = f"the own is closer in {share(own)} of the comparisons; guessing reaches 50%"
    carries = own.above(CHANCE)
    if carries:
        first = f"{on}, {what} carry what a head writes for this very picture: {figures}."
    elif own.defined and own.high < CHANCE:
        first = f"{on}, the own write is farther from the input more often than not: {figures}."
    else:
        first = f"{on}, {what} do not tell the own write from another picture's: {figures}."
    sentences = [first, _in_layers(main, layers)]
    if decoded:
        sentences.append(f"Before decoding it is {share(undecoded.share)}; the decoder loses the rest.")
    if other is not None:
        sentences.append(_independent(other))
    sentences.append(
        f"The Steering Lens identifies the picture {compared(difference)} the Diffusion Lens ({share(alone.share)})."
    )
    if len(sentences) < SENTENCES and main.own_against_random is not None:
        sentences.append(
            "A random direction, steered as strongly, is farther from the input than the own write in "
            f"{share(main.own_against_random)}."
        )
    if not decoded:
        return Conclusion(tuple(sentences), "Decode: run the study with a pair whose decoder reads this embedding.")
    trust = "In reports, compare each head's picture with its foil (steerlens lens --foils 1), head by head."
    return Conclusion(tuple(sentences), trust if carries else "Do not read single heads' pictures of this pair.")


def _in_layers(main: Identification, layers: Sequence[int]) -> str:
    """Layers whose own interval lies above chance, in a sentence."""
    above = [layer for layer, estimate in zip(layers, main.by_layer, strict=True) if estimate.above(CHANCE)]
    if not above:
        return "No single layer lies above guessing."
    if len(above) == len(layers):
        return f"Every layer lies above guessing, from {share(min(main.by_layer, key=lambda layer: layer.value))} on."
    named = joined([str(layer) for layer in above])
    verb = "lies" if len(above) == 1 else "lie"
    return f"{len(above)} of {len(layers)} layers {verb} above guessing by themselves: {named}."


def _independent(other: Identification) -> str:
    holds = "so it does" if other.share.above(CHANCE) else "so it does not"
    return (
        "The input's embedding contains the own write as a summand. Does the write also point to another picture of "
        f"the same concept, which does not contain it? It is closer in {share(other.share)}, {holds}."
    )


def compared(difference: Estimate) -> str:
    """Comparison of two lenses, in words."""
    if not difference.excludes_zero:
        return "no better and no worse than"
    return "better than" if difference.above() else "worse than"


def identification_claims(summary: IdentificationSummary) -> list[Claim]:
    """Claims that are compared between models."""
    what = "a head's own write is closer to the input than the same head's write for another picture"
    rows = [
        (summary.row(STEERING, view), how)
        for view, how in (("requested", "before decoding"), ("decoded", "in pictures"))
    ]
    claims = [Claim(f"{what}, {how}", row.share, CHANCE) for row, how in rows if row is not None]
    other = summary.row(STEERING, summary.main_view, OTHER)
    if other is not None:
        how = "in pictures" if summary.seeds else "before decoding"
        words = "a head's own write is closer to another picture of the input's concept, which does not contain it"
        claims.append(Claim(f"{words}, {how}", other.share, CHANCE))
    if summary.seeds:
        claims.append(
            Claim("the Steering Lens identifies inputs better than the Diffusion Lens, in pictures", summary.difference)
        )
    return claims


def identification_findings(summary: IdentificationSummary) -> list[Finding]:
    """The finding in plain sentences, controls, and independent comparisons."""
    main = summary.main
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
        Finding(
            "A random direction, steered as strongly, is farther from the input than the own write in "
            f"{share(main.own_against_random)}, and than the other picture's write in "
            f"{share(main.foil_against_random)}.",
            headline=True,
        ),
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
        reached = met(decoded.share.value >= _BAR and decoded.share.above(_LOWEST))
        bars.append(Bar(f"{what}, decoded", share(decoded.share), "70%, interval above 60%", reached))
    if undecoded is not None:
        verdict = "above chance" if undecoded.share.above(CHANCE) else "NOT above chance"
        bars.append(Bar(f"{what}, not decoded", share(undecoded.share), "reported; chance is 50%", verdict))
    return bars
