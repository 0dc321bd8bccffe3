"""Content of a report as plain values: every number comes from the atlas, and nothing is drawn here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerlens.atlas import CONTROLS, Atlas, CellResult, LensName, Reading, SiteScore, foil_of
from steerlens.printable import without_folders
from steerlens.report.cards import card_data
from steerlens.report.colours import DIVERGING, SEQUENTIAL
from steerlens.report.embed import data_uri, packed
from steerlens.report.findings import head_counts, sentences
from steerlens.report.scales import nice_ceiling, similarity_scale
from steerlens.report.seen import seen_picture
from steerlens.report.terms import LENSES, STRONG, TOP_K, is_selection, is_strong, lens_names
from steerlens.report.units import unit_data
from steerlens.report.words import words
from steerlens.sites import Site, layer_sites

PICTURE_BYTES = 60_000_000
"""Most characters of picture data on a page; the run's parquet files have the rest."""


MAX_INPUTS = 24
"""Most inputs on a page and in its figures; the run's parquet files have the rest."""


@dataclass(frozen=True)
class Addresses:
    """Where a page finds the pictures of an input, if they are not inside it.

    Attributes:
        input: address of the input picture.
        view: address of the input as the encoder saw it.
        cells: addresses of decoded pictures, by key of the cell.
        attention: address of the attention, 16-bit numbers; None if the run kept none.
        cards: addresses of cards of heads, by text form of the head; None if the page holds them.
    """

    input: str
    view: str
    cells: Mapping[str, str]
    attention: str | None
    cards: Mapping[str, str] | None = None


def page_meta(atlas: Atlas) -> dict[str, Any]:
    """Data of the whole run for the page's script."""
    measured = [reading.ablation_effects for reading in atlas.readings if reading.ablation_effects is not None]
    ablated = max((float(effects.max()) for effects in measured), default=1.0)
    writes = max((float(reading.write_norms.max()) for reading in atlas.readings), default=1.0)
    direct = max((float(reading.direct_similarity.abs().max()) for reading in atlas.readings), default=1.0)
    lenses = lens_names(atlas)
    return {
        "run": run_id(atlas),
        "layers": atlas.encoder.n_layers,
        "heads": atlas.encoder.n_heads,
        "grid": list(atlas.encoder.patch_grid),
        "firstPatch": atlas.encoder.first_patch,
        "tokens": atlas.encoder.n_tokens,
        "lenses": {lens: LENSES[lens] for lens in lenses},
        "words": words(atlas),
        "strength": str(atlas.plan.strength),
        "seeds": list(atlas.plan.seeds),
        "strong": STRONG,
        "selection": is_selection(atlas),
        "steers": "steering" in atlas.plan.lenses,
        "k": TOP_K,
        "sequential": SEQUENTIAL,
        "diverging": DIVERGING,
        # The whole run shares one scale, never fitted to a picture or a head, so that maps can be compared.
        "scales": {
            "similarity": list(similarity_scale(atlas, lenses)),
            "margin": [-0.5, 0.5],
            "effect": [-1, 1],
            "ablation": [0, nice_ceiling(ablated)],
            "write": [0, nice_ceiling(writes)],
            "direct": [-nice_ceiling(direct), nice_ceiling(direct)],
        },
        "pictures": [{"id": reading.id, "name": reading.picture.name} for reading in atlas.readings],
    }


def run_id(atlas: Atlas) -> str | None:
    """Short identifier of a run, for addresses; None for an atlas that is no run."""
    fingerprint = atlas.manifest.get("fingerprint")
    return fingerprint[:10] if isinstance(fingerprint, str) and fingerprint else None


def picture_data(
    atlas: Atlas, reading: Reading, budget: int = PICTURE_BYTES, addresses: Addresses | None = None
) -> dict[str, Any]:
    """Data of one input for the page: addresses of pictures and numbers, by site.

    Args:
        atlas: the run.
        reading: the input.
        budget: most characters of decoded pictures to embed, highest-ranked sites first.
        addresses: files of the pictures; by default the page holds all pictures as `data:` addresses.
    """
    id = reading.id
    scores: dict[LensName, dict[Site, SiteScore]] = {
        lens: {site: atlas.score(lens, site, id) for site in atlas.sites(lens, id)} for lens in lens_names(atlas)
    }
    tops: dict[LensName, list[Site]] = {lens: _ranking(of_lens) for lens, of_lens in scores.items()}
    if ablated := atlas.sites("ablation", id):
        scores["ablation"] = {site: atlas.score("ablation", site, id) for site in ablated}
    known = _embedded(atlas, reading, tops, budget) if addresses is None else addresses
    sites = dict.fromkeys(site for of_lens in scores.values() for site in of_lens)
    return {
        "id": id,
        "name": reading.picture.name,
        "note": reading.picture.note,
        "size": list(reading.picture.image.size),
        "input": known.input,
        "view": known.view,
        "seen": _seen(atlas, reading),
        "target": reading.target,
        "targetSimilarity": _number(reading.target_similarity),
        "sentences": sentences(atlas, reading),
        "counts": head_counts(atlas, id),
        "clean": [_cell(result, known.cells) for result in atlas.clean(id)],
        "sites": {
            str(site): {
                "label": site.label,
                "kind": site.kind,
                "layer": site.layer,
                "head": site.head,
                "labels": _labels(reading, site),
                **({"decomposed": True} if _decomposed(reading, site) else {}),
                **{lens: _scored(atlas, id, of[site], known.cells) for lens, of in scores.items() if site in of},
            }
            for site in sites
        },
        "top": {lens: [str(site) for site in ranking] for lens, ranking in tops.items()},
        "layerLabels": [_labels(reading, site) for site in layer_sites("resid_post", atlas.encoder.n_layers)],
        "embedLabels": _labels(reading, Site("embed")),
        "writeNorms": [_number(value) for value in reading.write_norms.flatten().tolist()],
        "direct": [_number(value) for value in reading.direct_similarity.flatten().tolist()],
        "undecoded": None
        if reading.steered_similarity is None
        else [_number(value) for value in reading.steered_similarity.flatten().tolist()],
        "withoutHead": None
        if reading.ablation_effects is None
        else [_number(value) for value in reading.ablation_effects.flatten().tolist()],
        "attention": known.attention,
        "units": unit_data(atlas, reading),
        "cards": card_data(atlas.cards.get(id), known.cards),
        "leftOut": len(atlas.results_of(id)) - len(known.cells),
    }


def _seen(atlas: Atlas, reading: Reading) -> list[float] | None:
    """Left, top, width and height of the encoder's view, as shares of the picture's sides; None if not known."""
    geometry, (width, height) = atlas.encoder.geometry, reading.picture.image.size
    if geometry is not None and geometry.resize == "unknown":
        return None
    left, top, right, bottom = atlas.encoder.view((width, height)).box
    return [left / width, top / height, (right - left) / width, (bottom - top) / height]


def manifest_rows(manifest: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flattens a manifest to rows of name and text, without paths of this machine; long lists are counted."""
    rows: list[tuple[str, str]] = []
    for key, value in manifest.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            rows.extend(manifest_rows(value, f"{name}."))
        elif isinstance(value, list | tuple) and len(value) > 8:
            rows.append((name, f"{len(value)} entries"))
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            rows.extend(manifest_rows({str(index): item for index, item in enumerate(value)}, f"{name}."))
        elif isinstance(value, list | tuple):
            rows.append((name, ", ".join(without_folders(str(item)) for item in value)))
        else:
            rows.append((name, "not set" if value is None else without_folders(str(value))))
    return rows


def _ranking(scores: Mapping[Site, SiteScore]) -> list[Site]:
    heads = [score for site, score in scores.items() if site.kind == "head"]
    return [score.site for score in sorted(heads, key=lambda score: -score.similarity)]


def _embedded(atlas: Atlas, reading: Reading, tops: Mapping[LensName, list[Site]], budget: int) -> Addresses:
    return Addresses(
        input=data_uri(reading.picture.image, side=384),
        view=data_uri(seen_picture(atlas, reading), side=256),
        cells=_embedded_cells(atlas, reading.id, tops, budget),
        attention=None if reading.attention is None else packed(reading.attention.float().numpy()),
    )


def _embedded_cells(atlas: Atlas, id: str, tops: Mapping[LensName, list[Site]], budget: int) -> dict[str, str]:
    """`data:` addresses of decoded pictures by cell key, highest-ranked sites first, until the budget is used up."""
    grids = {site for ranking in tops.values() for site in ranking[:TOP_K]}
    rank = {"steering": 3, "total": 4, "ablation": 5, "diffusion": 6, "control": 7, "total_control": 7, "foil": 7}

    def order(result: CellResult) -> int:
        site = result.cell.site
        return (
            0
            if site.kind == "resid_post"
            else 1
            if site in grids
            else 2
            if site.kind != "head"
            else rank[result.cell.lens]
        )

    addresses: dict[str, str] = {}
    for result in sorted(atlas.results_of(id), key=order):
        address = data_uri(result.picture)
        budget -= len(address)
        if budget < 0:
            break
        addresses[result.cell.key] = address
    return addresses


def _scored(atlas: Atlas, id: str, score: SiteScore, addresses: Mapping[str, str]) -> dict[str, Any]:
    random = CONTROLS.get(score.lens)
    controls = () if random is None else atlas.cells(random, score.site, id)
    foils = atlas.cells("foil", score.site, id) if score.lens == "steering" else ()
    return {
        "similarity": _number(score.similarity),
        "steered": _number(score.steered_similarity),
        "fidelity": _number(score.fidelity),
        "agreement": _number(score.agreement),
        "rho": _number(score.rho),
        "directCosine": _number(score.direct_cosine),
        "changeCosine": _number(score.change_cosine),
        "control": _number(score.control),
        "beats": score.beats_control,
        "strong": is_strong(atlas, score),
        "share": _number(score.control_share) if atlas.plan.strength.kind == "rho" else None,
        "pictures": [_cell(result, addresses) for result in atlas.cells(score.lens, score.site, id)],
        "controls": [_cell(result, addresses) for result in controls],
        "foil": _number(score.foil),
        "beatsFoil": score.beats_foil,
        "foils": [{**_cell(result, addresses), "of": _other_input(atlas, result)} for result in foils],
    }


def _other_input(atlas: Atlas, foil: CellResult) -> str:
    """Name of the input whose write a foil was steered with."""
    recorded: Mapping[str, Any] = atlas.manifest.get("inputs") or {}
    names = {id: str(entry.get("name", id)) for id, entry in recorded.items()}
    # An atlas of fake results records no inputs.
    names = names or {reading.id: reading.picture.name for reading in atlas.readings}
    if foil.cell.draw >= len(names):
        return "another input"
    return names[foil_of(list(names), foil.cell.picture, foil.cell.draw)]


def _cell(result: CellResult, addresses: Mapping[str, str]) -> dict[str, Any]:
    return {
        "src": addresses.get(result.cell.key),
        "seed": result.cell.seed,
        "draw": result.cell.draw,
        "similarity": _number(result.similarity),
        "fidelity": _number(result.fidelity),
    }


def _decomposed(reading: Reading, site: Site) -> bool:
    """True if the site's labels are texts that add up to it (`--names omp` or `textspan`), not the nearest ones."""
    labels = reading.top_labels(site)
    return bool(labels) and labels[-1].explained is not None


def _labels(reading: Reading, site: Site) -> list[tuple[str, float | None]]:
    """Labels of a site with their scores; texts of a decomposition end with the variance that they explain."""
    labels = reading.top_labels(site)
    named = [
        (f"−{label.name}" if label.explained is not None and label.score < 0 else label.name, _number(label.score))
        for label in labels
    ]
    if labels and labels[-1].explained is not None:
        words = f"all explain, of the variance (random texts {labels[-1].control or 0:.2f})"
        named.append((words, _number(labels[-1].explained)))
    return named


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4) + 0.0
