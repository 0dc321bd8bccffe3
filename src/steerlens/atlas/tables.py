"""Tables of an atlas: a row for each score of a site, or for each decoded picture."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from steerlens.atlas.plan import LensName
from steerlens.atlas.results import CellResult, Reading, SiteScore
from steerlens.errors import UsageError
from steerlens.sites import Site, all_heads

if TYPE_CHECKING:
    from steerlens.atlas.atlas import Atlas

Rows = Literal["scores", "cells"]
"""Rows of a table: scores of sites, over all seeds, or decoded pictures, one a seed, controls among them."""

COLUMN_WORDS: Mapping[str, str] = {
    "picture": "name of the input",
    "id": "id of the input, from its content",
    "lens": "lens: `diffusion`, `steering`, `total` or `ablation`; `cells` also has controls and foils",
    "site": "the site, in the form that options take: `head.9.4`, `resid_post.11`",
    "kind": "kind of the site: `head`, `mlp_out`, `resid_post`, ...",
    "layer": "layer of the site, from 0",
    "head": "number of the head in its layer, from 0; -1 for other sites",
    "strength": "steering strength: `rho=1`, `s=40`; empty for lenses that do not steer",
    "seed": "seed of the decoder",
    "draw": "number of the random direction, for controls; number of the foil, for foils",
    "rho": "relative steering strength, signed; 0 for the Diffusion Lens",
    "similarity": "cosine of the decoded picture, embedded again, with the target; mean over seeds in `scores`. Empty "
    "for heads that were ranked but not decoded",
    "steered_similarity": "cosine of the embedding with the target, before decoding",
    "fidelity": "cosine of the decoded picture, embedded again, with the embedding that was decoded; mean over seeds "
    "in `scores`",
    "agreement": "mean pairwise cosine between the pictures of different seeds; empty with one seed",
    "control": "mean `similarity` of the site's own random directions; empty without controls",
    "beats_control": "whether `similarity` exceeds `control`",
    "control_share": "share of all random directions of the input, of all sites, that score lower",
    "foil": "mean `similarity` of the site's writes for other inputs, steered as hard; empty without foils",
    "beats_foil": "whether `similarity` exceeds `foil`",
    "direct_cosine": "for `total` and `ablation`: cosine with the embedding of the direct effect, before decoding",
    "change_cosine": "for `total` and `ablation`: the same between the changes of the clean embedding",
    "ablation_effect": "for `ablation` of heads: 1 minus the cosine of the input's embedding with the embedding "
    "without the head, everything after it reacting. Known for every head, decoded or not",
    "label": "best Logit Lens label of the site; empty without a vocabulary",
    "image": "the decoded picture, that of the first seed in `scores`, as the bytes of a PNG file (with `images=True`)",
}
"""Meaning of every column, for the docs."""

_INPUT = {"picture": pa.string(), "id": pa.string()}
_SITE = {"lens": pa.string(), "site": pa.string(), "kind": pa.string(), "layer": pa.int32(), "head": pa.int32()}

_SCORED: tuple[LensName, ...] = ("diffusion", "steering", "total", "ablation")

_COLUMNS: Mapping[Rows, Mapping[str, Any]] = {
    "scores": {
        **_INPUT,
        **_SITE,
        "rho": pa.float64(),
        "similarity": pa.float64(),
        "steered_similarity": pa.float64(),
        "fidelity": pa.float64(),
        "agreement": pa.float64(),
        "control": pa.float64(),
        "beats_control": pa.bool_(),
        "control_share": pa.float64(),
        "foil": pa.float64(),
        "beats_foil": pa.bool_(),
        "direct_cosine": pa.float64(),
        "change_cosine": pa.float64(),
        "ablation_effect": pa.float64(),
        "label": pa.string(),
    },
    "cells": {
        **_INPUT,
        **_SITE,
        "strength": pa.string(),
        "seed": pa.int64(),
        "draw": pa.int32(),
        "rho": pa.float64(),
        "similarity": pa.float64(),
        "steered_similarity": pa.float64(),
        "fidelity": pa.float64(),
        "direct_cosine": pa.float64(),
        "change_cosine": pa.float64(),
    },
}


def arrow_table(atlas: "Atlas", rows: Rows = "scores", *, images: bool = False) -> Any:
    """Builds a `pyarrow.Table` of an atlas.

    Args:
        atlas: the results.
        rows: `scores`, a row for each input, lens and site, also for heads that were ranked or ablated but
            not decoded, whose columns of pictures are empty; or `cells`, a row for each decoded picture.
        images: add the decoded picture (that of the first seed, for scores) as the bytes of a PNG file.

    Raises:
        UsageError: if there are no such rows.
    """
    if rows not in _COLUMNS:
        raise UsageError(f"a table has the rows 'scores' or 'cells', not {rows!r}.")
    columns = {**_COLUMNS[rows], **({"image": pa.binary()} if images else {})}
    found = _scores(atlas, images) if rows == "scores" else _cells(atlas, images)
    return pa.Table.from_pylist(list(found), schema=pa.schema(list(columns.items())))


def pandas_frame(table: Any) -> Any:
    """Converts a table to a `pandas.DataFrame`.

    Raises:
        UsageError: if pandas is not installed.
    """
    if find_spec("pandas") is None:
        raise UsageError("pandas is not installed: pip install pandas, or use to_arrow().")
    return table.to_pandas()


def polars_frame(table: Any) -> Any:
    """Converts a table to a `polars.DataFrame`.

    Raises:
        UsageError: if polars is not installed.
    """
    try:
        import polars  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UsageError("polars is not installed: pip install polars, or use to_arrow().") from None
    return polars.from_arrow(table)


def _scores(atlas: "Atlas", images: bool) -> Iterator[dict[str, Any]]:
    several = len(atlas.plan.seeds) > 1
    for reading in atlas.readings:
        for lens in _SCORED:
            for site in atlas.sites(lens, reading.id):
                score = atlas.score(lens, site, reading.id)
                labels = reading.top_labels(site)
                yield {
                    "picture": reading.picture.name,
                    "id": reading.id,
                    **_site(score),
                    "rho": score.rho,
                    "similarity": score.similarity,
                    "steered_similarity": score.steered_similarity,
                    "fidelity": score.fidelity,
                    "agreement": score.agreement if several else None,
                    "control": score.control,
                    "beats_control": score.beats_control,
                    "control_share": score.control_share,
                    "foil": score.foil,
                    "beats_foil": score.beats_foil,
                    "direct_cosine": score.direct_cosine,
                    "change_cosine": score.change_cosine,
                    "ablation_effect": _ablation_effect(reading, score.site) if lens == "ablation" else None,
                    "label": next((label.name for label in labels), None),
                    **({"image": score.pngs[0]} if images else {}),
                }

        yield from _undecoded(atlas, reading)
        yield from _only_ablated(atlas, reading)


def _undecoded(atlas: "Atlas", reading: Reading) -> Iterator[dict[str, Any]]:
    """Rows of the heads that the Steering Lens ranked, but that were not decoded."""
    if reading.steered_similarity is None:
        return
    decoded = set(atlas.sites("steering", reading.id))
    planned = dict.fromkeys(cell.site for cell in atlas.plan.of(reading.id) if cell.lens == "steering")
    for site in planned:
        if site.kind == "head" and site not in decoded:
            labels = reading.top_labels(site)
            yield {
                "picture": reading.picture.name,
                "id": reading.id,
                **_place("steering", site),
                "steered_similarity": float(reading.steered_similarity[site.layer, site.head]),
                "label": labels[0].name if labels else None,
            }


def _only_ablated(atlas: "Atlas", reading: Reading) -> Iterator[dict[str, Any]]:
    """Rows of the heads whose ablation was measured, but not decoded."""
    if reading.ablation_effects is None:
        return
    decoded = set(atlas.sites("ablation", reading.id))
    for site in all_heads(*reading.ablation_effects.shape):
        if site not in decoded:
            labels = reading.top_labels(site)
            yield {
                "picture": reading.picture.name,
                "id": reading.id,
                **_place("ablation", site),
                "ablation_effect": _ablation_effect(reading, site),
                "label": labels[0].name if labels else None,
            }


def _ablation_effect(reading: Reading, site: Site) -> float | None:
    if reading.ablation_effects is None or site.kind != "head":
        return None
    return float(reading.ablation_effects[site.layer, site.head])


def _cells(atlas: "Atlas", images: bool) -> Iterator[dict[str, Any]]:
    names = {reading.id: reading.picture.name for reading in atlas.readings}
    for result in atlas.results:
        cell = result.cell
        yield {
            "picture": names.get(cell.picture, cell.picture),
            "id": cell.picture,
            **_site(result),
            "strength": None if cell.strength is None else str(cell.strength),
            "seed": cell.seed,
            "draw": cell.draw,
            "rho": result.rho,
            "similarity": result.similarity,
            "steered_similarity": result.steered_similarity,
            "fidelity": result.fidelity,
            "direct_cosine": result.direct_cosine,
            "change_cosine": result.change_cosine,
            **({"image": result.png} if images else {}),
        }


def _site(entry: SiteScore | CellResult) -> dict[str, Any]:
    lens, site = (entry.lens, entry.site) if isinstance(entry, SiteScore) else (entry.cell.lens, entry.cell.site)
    return _place(lens, site)


def _place(lens: LensName, site: Site) -> dict[str, Any]:
    return {"lens": lens, "site": str(site), "kind": site.kind, "layer": site.layer, "head": site.head}
