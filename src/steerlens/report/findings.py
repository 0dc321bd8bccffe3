"""Findings of a run for one input: counts, and a few sentences written from its numbers."""

import math
from typing import Any

import numpy as np

from steerlens.atlas import Atlas, LensName, Reading, SiteScore
from steerlens.report.ordering import unordered_sentence
from steerlens.report.terms import (
    LENSES,
    STRONG,
    is_selection,
    is_strong,
    lens_names,
    steered_lens,
    target_words,
    two,
    written_tokens,
)
from steerlens.report.units import unit_sentences
from steerlens.report.words import is_retrieved, words


def head_counts(atlas: Atlas, picture: str) -> dict[str, Any] | None:
    """Counts the heads that beat their control, beside the count expected by chance; None without controls."""
    lens = steered_lens(atlas)
    compared = [score for score in atlas.ranked(lens, picture) if score.beats_control is not None]
    if not compared:
        return None
    comparable = atlas.plan.strength.kind == "rho"
    return {
        "lens": LENSES[lens].replace("Diffusion Steering", "Steering"),
        "heads": len(compared),
        "beats": sum(bool(score.beats_control) for score in compared),
        # Heads that were selected by their undecoded similarity beat controls more often than chance, of themselves.
        "chance": None if is_selection(atlas) else round(len(compared) / 2),
        "strong": sum(is_strong(atlas, score) for score in compared) if comparable else None,
        "strongChance": None if is_selection(atlas) else round(len(compared) * (1 - STRONG), 4),
    }


def foil_counts(atlas: Atlas, picture: str) -> tuple[int, int] | None:
    """Heads that beat their own write for other inputs, and the compared heads; None without foils."""
    compared = [score.beats_foil for score in atlas.ranked("steering", picture) if score.beats_foil is not None]
    return (sum(compared), len(compared)) if compared else None


def half_layer(atlas: Atlas, picture: str) -> int | None:
    """First layer from which the residual stream keeps half of the clean reconstruction's similarity; None if none."""
    clean = atlas.clean(picture)
    sites = [site for site in atlas.sites("diffusion", picture) if site.kind == "resid_post"]
    if not clean or len(sites) < atlas.plan.n_layers:
        return None
    goal = float(np.mean([result.similarity for result in clean])) / 2
    first: int | None = None
    for site in sorted(sites, reverse=True):
        if atlas.score("diffusion", site, picture).similarity < goal:
            break
        first = site.layer
    return first if goal > 0 else None


def sentences(atlas: Atlas, reading: Reading) -> list[str]:
    """Findings for one input, as a few sentences written from its numbers."""
    findings: list[str] = []
    clean = atlas.clean(reading.id)
    itself = reading.target == "the input itself"
    if clean and is_retrieved(atlas):
        nearest = max(result.fidelity for result in clean)
        findings.append(
            "Every picture but the input is a file of the index: the nearest to an embedding, and none of them drawn. "
            f"The one nearest to the input's own embedding has a cosine of {two(nearest)} with it: where this is low, "
            "the index holds nothing like the input."
        )
    elif clean:
        fidelity = float(np.mean([result.fidelity for result in clean]))
        source = "image tokens" if written_tokens(atlas) else "embedding"
        findings.append(
            f"The decoder redraws the input's own {source} with a fidelity of {two(fidelity)}. Anything missing from "
            f"the clean reconstruction is not in the {source}, or the decoder does not draw it: expect no other "
            "picture to show it."
        )
    if (unordered := unordered_sentence(atlas, reading)) is not None:
        findings.append(unordered)
    elif (layer := half_layer(atlas, reading.id)) is not None and itself:
        findings.append(
            f"Read layer by layer, the residual stream keeps at least half of the {words(atlas)['clean']}'s similarity "
            f"from layer {layer} on (layers 0 to {atlas.plan.n_layers - 1})."
        )
    if (choice := str(atlas.manifest.get("decode", "all"))) == "top:0":
        findings.append(
            "No head and no other write was decoded (--decode none). The map shows the scores of all heads."
        )
    elif choice != "all":
        findings.append(
            f"Of all heads and other writes, each lens decoded only those closest to {target_words(reading)} before "
            f"decoding (--decode {choice}). They are a selection: no level of chance applies to the number that beats "
            "controls. The map shows the similarity before decoding of all heads."
        )
    best: dict[LensName, tuple[SiteScore, ...]] = {
        lens: atlas.ranked(lens, reading.id, k=1) for lens in lens_names(atlas)
    }
    named = [
        f"{top[0].site.label} under the {LENSES[lens]} ({two(top[0].similarity)})" for lens, top in best.items() if top
    ]
    if named:
        findings.append(f"The heads whose pictures are closest to {target_words(reading)} are {' and '.join(named)}.")
    findings += unit_sentences(atlas, reading)
    findings += effect_sentences(atlas, reading)
    if counts := head_counts(atlas, reading.id):
        findings.append(
            f"{counts['beats']} of {counts['heads']} {'decoded ' if is_selection(atlas) else ''}heads score above "
            f"their own random control{_chance(counts['chance'])}."
        )
        if counts["strong"] is not None:
            findings.append(
                f"{_scores(counts['strong'])} above at least {100 * STRONG:g} % of all controls"
                f"{_chance(counts['strongChance'], 1)}."
            )
    if foils := foil_counts(atlas, reading.id):
        findings.append(
            f"{foils[0]} of {foils[1]} heads score above the same head's write for another input, steered as hard"
            f"{_chance(None if is_selection(atlas) else foils[1] / 2)}. "
            + ("" if is_selection(atlas) else "The excess is what pictures carry of this very input.")
        )
    return findings


def _scores(count: int) -> str:
    """Number of heads with its verb, as the start of a sentence: `None scores`, `1 scores`, `7 score`."""
    return f"{count or 'None'} {'score' if count > 1 else 'scores'}"


def _chance(count: float | None, digits: int = 0) -> str:
    """Number that chance would give, as the end of a sentence; empty where a selection has no chance level."""
    return "" if count is None else f", where chance alone would give about {count:.{digits}f}"


def effect_sentences(atlas: Atlas, reading: Reading) -> list[str]:
    """How far the total effects of heads part from the direct ones, as a sentence; none without total effects."""
    known = {
        score.site.label: score.change_cosine
        for score in atlas.ranked("total", reading.id)
        if score.change_cosine is not None and math.isfinite(score.change_cosine)
    }
    if not known:
        return []
    least, most = min(known, key=lambda label: known[label]), max(known, key=lambda label: known[label])
    return [
        "Once later layers react, the embedding changes in a direction whose cosine with the direct change is "
        f"{two(float(np.median(list(known.values()))))} for the median head, between {two(known[least])} ({least}) and "
        f"{two(known[most])} ({most}): 1 means that the direct effect is all there is."
    ]
