"""Names, marks and words that the page and the figures share."""

import math
from collections.abc import Mapping

from steerlens.atlas import Atlas, LensName, Reading, SiteScore, clean_site

LENSES: Mapping[LensName, str] = {
    "diffusion": "Diffusion Lens",
    "steering": "Diffusion Steering Lens",
    "total": "Total Lens",
}

STRONG = 0.95
"""Share of its picture's random directions (means over seeds) that a head must beat to get the strong mark."""

TOP_K = 6
"""Heads in a grid, as in the paper."""


def lens_names(atlas: Atlas) -> tuple[LensName, ...]:
    """Lenses that have at least one picture besides the clean reconstructions."""
    clean = clean_site(atlas.plan.n_layers)
    used = {cell.lens for cell in atlas.finished if cell.lens != "diffusion" or cell.site != clean}
    return tuple(lens for lens in LENSES if lens in used)


def is_strong(atlas: Atlas, score: SiteScore) -> bool:
    """True if a site beats its own control and nearly all controls of its picture.

    Always False if strengths differ from site to site, since controls of different strength do not compare.
    """
    if atlas.plan.strength.kind != "rho" or score.control_share is None:
        return False
    return bool(score.beats_control) and score.control_share >= STRONG


def steered_lens(atlas: Atlas) -> LensName:
    """The lens whose controls the marks of a map refer to: the Steering Lens, or the Total Lens alone."""
    return "total" if "total" in lens_names(atlas) and "steering" not in lens_names(atlas) else "steering"


def is_selection(atlas: Atlas) -> bool:
    """True if only some sites were decoded, chosen by their similarity before decoding."""
    return str(atlas.manifest.get("decode", "all")) != "all"


def written_tokens(atlas: Atlas) -> str:
    """Image tokens that the Steering Lens wrote to, in words; empty if the decoder reads an embedding."""
    if atlas.decoder.consumes != "image_tokens":
        return ""
    area = str(atlas.manifest.get("tokens", "all"))
    return "all tokens that the decoder reads" if area == "all" else f"the tokens {area}"


def domain(atlas: Atlas) -> str:
    """Pictures that the decoder was trained on, in words; empty if the run does not say."""
    provenance = atlas.manifest.get("provenance")
    return str(provenance.get("domain", "")) if isinstance(provenance, Mapping) else ""


def two(value: float) -> str:
    """Formats a number with two decimals and a true minus sign, never as negative zero; a dash if it is not finite."""
    if not math.isfinite(value):
        return "–"
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def target_words(reading: Reading) -> str:
    """Target as worded in a sentence."""
    return "the input" if reading.target == "the input itself" else reading.target
