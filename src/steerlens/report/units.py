"""Features of sparse autoencoders and neurons on a page: plain values and sentences."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

from steerlens.atlas import Atlas, Reading, UnitReading
from steerlens.report.embed import packed
from steerlens.report.terms import two
from steerlens.sites import SAE_KINDS

UNIT_KINDS = ("neuron", *SAE_KINDS)
"""Kinds of sites that a section of their own shows."""


def unit_data(atlas: Atlas, reading: Reading) -> list[dict[str, Any]]:
    """Units of one input for the page's script, in the order of the plan."""
    first, (rows, columns) = atlas.encoder.first_patch, atlas.encoder.patch_grid
    patches = slice(first, first + rows * columns)
    return [
        {
            "key": str(unit.site),
            "group": unit.site.name or "neurons",
            "activation": _number(unit.activation),
            "effect": _number(unit.effect),
            "similarity": _number(unit.similarity),
            "second": _number(unit.second_order),
            "together": _number(unit.together),
            "ablated": _number(unit.ablated),
            **_map(unit, patches),
        }
        for unit in reading.units
    ]


def _map(unit: UnitReading, patches: slice) -> dict[str, Any]:
    """Activation on every patch as shares of the largest, and that largest; null where no token holds the unit."""
    if unit.tokens is None:
        return {"map": None, "peak": None}
    sizes = unit.tokens[patches].float().abs()
    peak = float(sizes.max())
    return {"map": packed((sizes / peak if peak > 0 else sizes).numpy()), "peak": _number(peak)}


def saes_of(atlas: Atlas) -> Mapping[str, Mapping[str, Any]]:
    """Facts about the autoencoders of a run, by name; empty without any."""
    saes = atlas.manifest.get("saes")
    return cast(Mapping[str, Mapping[str, Any]], saes) if isinstance(saes, Mapping) else {}


def sae_lines(atlas: Atlas) -> list[dict[str, Any]]:
    """Each autoencoder with its fit to the inputs, in words, and whether the fit is poor."""
    return [
        {
            "name": name,
            "words": f"{sae.get('features', 0):,} features of {sae.get('site')} ({sae.get('activation')}), trained on "
            f"{_TOKENS.get(str(sae.get('trained_on')), 'tokens that its files do not name')}",
            "fit": _fit_words(sae.get("fit") or {}),
            "poor": bool((sae.get("fit") or {}).get("is_poor")),
        }
        for name, sae in saes_of(atlas).items()
    ]


_TOKENS = {"all": "all tokens", "patch": "image patches", "cls": "the class token"}


def _fit_words(fit: Mapping[str, Any]) -> str:
    def shown(name: str) -> float:
        value = fit.get(name)
        return math.nan if value is None else float(value)

    explained = "explained variance unknown, as there is one value"
    if not math.isnan(shown("explained_variance")):
        explained = f"explained variance {two(shown('explained_variance'))}"
    after = "after the model's readout" if fit.get("after_readout") else "with what it reads"
    return (
        f"{explained}, L0 {shown('l0'):.1f} and {100 * shown('dead_share'):.0f} % of its features silent (on "
        f"{fit.get('tokens', 'readout tokens')}); on what is read out, its error is {100 * shown('error_norm'):.0f} % "
        f"as long as the value, and the cosine {after} is {two(shown('cosine'))}"
    )


def unit_sentences(atlas: Atlas, reading: Reading) -> Iterator[str]:
    """Sentences on how many features of each autoencoder are active on one input, and which most."""
    for name, sae in saes_of(atlas).items():
        active = (sae.get("active") or {}).get(reading.id)
        shown = [unit for unit in reading.units if unit.site.kind == "feature" and unit.site.name == name]
        if active is None or not shown:
            continue
        best = max(shown, key=lambda unit: unit.activation or 0.0)
        yield (
            f"{active:,} of the {sae.get('features', 0):,} features of {name} are active on this input; "
            f"{len(shown)} of them are shown below. The most active is {best.site.label} ({two(best.activation or 0)})."
        )


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4) + 0.0
