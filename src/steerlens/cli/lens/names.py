"""Sums of texts that `steerlens lens --names omp|textspan` prints, with explained variance and that of random texts."""

from collections.abc import Iterator

from steerlens.atlas import Atlas, Reading
from steerlens.lenses import Label
from steerlens.sites import Site

_SHOWN = 6
"""Components named: the best heads and units by their decoded pictures, then others in the order of the plan."""


def name_lines(atlas: Atlas, reading: Reading) -> Iterator[str]:
    """Names components of one input by their decompositions; nothing for the nearest texts."""
    named: dict[Site, list[Label]] = {}
    for label in reading.labels:
        if label.explained is not None:
            named.setdefault(label.site, []).append(label)
    if not named:
        return
    best = [score.site for score in atlas.ranked("steering", reading.id)]
    rest = [site for site in named if site.kind not in ("embed", "resid_pre", "resid_mid", "resid_post")]
    chosen = [site for site in dict.fromkeys([*best, *rest, *named]) if site in named][:_SHOWN]
    yield "  sums of texts, with the variance that they explain (and that random texts explain):"
    for site in chosen:
        yield f"    {site.label}: {_words(named[site])}"


def _words(labels: list[Label]) -> str:
    texts = ", ".join(f"{'−' if label.score < 0 else ''}{label.name}" for label in labels)
    explained, control = labels[-1].explained or 0.0, labels[-1].control or 0.0
    return f"{texts} (explain {explained:.0%}; random texts {control:.0%})"
