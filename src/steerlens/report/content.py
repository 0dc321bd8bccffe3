"""Content of a report as plain values: every number comes from the atlas, and nothing is drawn here."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from steerlens.atlas import CONTROLS, Atlas, CellResult, LensName, Reading, SiteScore, clean_site, foil_of
from steerlens.printable import without_folders
from steerlens.report.colours import DIVERGING, SEQUENTIAL
from steerlens.report.embed import data_uri, packed
from steerlens.report.scales import nice_ceiling, similarity_scale
from steerlens.report.seen import seen_picture
from steerlens.report.words import is_retrieved, words
from steerlens.sites import Site, layer_sites

LENSES: Mapping[LensName, str] = {
    "diffusion": "Diffusion Lens",
    "steering": "Diffusion Steering Lens",
    "total": "Total Lens",
}

STRONG = 0.95
"""Share of its picture's random directions (means over seeds) that a head must beat to get the strong mark."""

TOP_K = 6
"""Heads in a grid, as in the paper."""

PICTURE_BYTES = 60_000_000
"""Most characters of picture data on a page; the run's parquet files have the rest."""


MAX_INPUTS = 24
"""Most inputs on a page and in its figures; the run's parquet files have the rest."""


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


def is_selection(atlas: Atlas) -> bool:
    """True if only some sites were decoded, chosen by their similarity before decoding."""
    return str(atlas.manifest.get("decode", "all")) != "all"


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
    if (layer := half_layer(atlas, reading.id)) is not None and itself:
        findings.append(
            f"Read layer by layer, the residual stream keeps at least half of the {words(atlas)['clean']}'s similarity "
            f"from layer {layer} on (layers 0 to {atlas.plan.n_layers - 1})."
        )
    if (choice := str(atlas.manifest.get("decode", "all"))) != "all":
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
    findings += effect_sentences(atlas, reading)
    if counts := head_counts(atlas, reading.id):
        findings.append(
            f"{counts['beats']} of {counts['heads']} {'decoded ' if is_selection(atlas) else ''}heads score above "
            f"their own random control{_chance(counts['chance'])}."
        )
        if counts["strong"] is not None:
            findings.append(
                f"{counts['strong']} score above at least {100 * STRONG:g} % of all controls"
                f"{_chance(counts['strongChance'], 1)}."
            )
    if foils := foil_counts(atlas, reading.id):
        findings.append(
            f"{foils[0]} of {foils[1]} heads score above the same head's write for another input, steered as hard"
            f"{_chance(None if is_selection(atlas) else foils[1] / 2)}. "
            + ("" if is_selection(atlas) else "The excess is what pictures carry of this very input.")
        )
    return findings


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


def page_meta(atlas: Atlas) -> dict[str, Any]:
    """Data of the whole run for the page's script."""
    writes = max((float(reading.write_norms.max()) for reading in atlas.readings), default=1.0)
    direct = max((float(reading.direct_similarity.abs().max()) for reading in atlas.readings), default=1.0)
    lenses = lens_names(atlas)
    return {
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
        "k": TOP_K,
        "sequential": SEQUENTIAL,
        "diverging": DIVERGING,
        # The whole run shares one scale, never fitted to a picture or a head, so that maps can be compared.
        "scales": {
            "similarity": list(similarity_scale(atlas, lenses)),
            "margin": [-0.5, 0.5],
            "effect": [-1, 1],
            "write": [0, nice_ceiling(writes)],
            "direct": [-nice_ceiling(direct), nice_ceiling(direct)],
        },
        "pictures": [{"id": reading.id, "name": reading.picture.name} for reading in atlas.readings],
    }


def picture_data(atlas: Atlas, reading: Reading, budget: int = PICTURE_BYTES) -> dict[str, Any]:
    """Data of one input for the page: pictures as `data:` addresses and numbers, by site.

    Args:
        atlas: the run.
        reading: the input.
        budget: most characters of decoded pictures to embed, highest-ranked sites first.
    """
    id = reading.id
    scores: dict[LensName, dict[Site, SiteScore]] = {
        lens: {site: atlas.score(lens, site, id) for site in atlas.sites(lens, id)} for lens in lens_names(atlas)
    }
    tops: dict[LensName, list[Site]] = {lens: _ranking(of_lens) for lens, of_lens in scores.items()}
    if ablated := atlas.sites("ablation", id):
        scores["ablation"] = {site: atlas.score("ablation", site, id) for site in ablated}
    addresses = _addresses(atlas, id, tops, budget)
    sites = dict.fromkeys(site for of_lens in scores.values() for site in of_lens)
    return {
        "id": id,
        "name": reading.picture.name,
        "note": reading.picture.note,
        "size": list(reading.picture.image.size),
        "input": data_uri(reading.picture.image, side=384),
        "view": data_uri(seen_picture(atlas, reading), side=256),
        "seen": _seen(atlas, reading),
        "target": reading.target,
        "targetSimilarity": _number(reading.target_similarity),
        "sentences": sentences(atlas, reading),
        "counts": head_counts(atlas, id),
        "clean": [_cell(result, addresses) for result in atlas.clean(id)],
        "sites": {
            str(site): {
                "label": site.label,
                "kind": site.kind,
                "layer": site.layer,
                "head": site.head,
                "labels": _labels(reading, site),
                **{lens: _scored(atlas, id, of[site], addresses) for lens, of in scores.items() if site in of},
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
        "attention": None if reading.attention is None else packed(reading.attention.float().numpy()),
        "leftOut": len(atlas.results_of(id)) - len(addresses),
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


def _addresses(atlas: Atlas, id: str, tops: Mapping[LensName, list[Site]], budget: int) -> dict[str, str]:
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


def _labels(reading: Reading, site: Site) -> list[tuple[str, float | None]]:
    return [(label.name, _number(label.score)) for label in reading.top_labels(site)]


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4) + 0.0
