"""The page of the explorer: the report of an input, linked to the server instead of holding its data."""

from dataclasses import replace
from typing import Any

from steerlens.app.explorer import Explorer
from steerlens.app.models import OpenModel
from steerlens.app.view import View
from steerlens.report import (
    Linked,
    advice,
    domain_warnings,
    page_meta,
    picture_data,
    report_page,
)

STYLES = ("/assets/report/report.css", "/assets/app/live.css")
SCRIPTS = ("/assets/app/live.js",)

_LENSES = {"steering": "Diffusion Steering Lens", "diffusion": "Diffusion Lens"}
"""Lenses of the page, whether or not anything was decoded yet."""


def explorer_page(explorer: Explorer) -> str:
    """The page as HTML; its script fetches everything else."""
    return report_page(explorer.atlas(View(_first(explorer))), linked=Linked(STYLES, SCRIPTS, live=True))


def live_meta(explorer: Explorer, model: str, inputs: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Data of the whole page: the report's, and what the live parts need.

    Args:
        explorer: the explorer.
        model: name of the model; empty for the first.
        inputs: ids of the pictures besides the examples that the visitor may see; None for all.
    """
    view = View(_first(explorer), model=model)
    atlas = explorer.run if explorer.run is not None and explorer.belongs_to_run(view) else explorer.atlas(view)
    opened = explorer.model(model)
    spec, decoder = opened.pair.encoder.spec, opened.pair.decoder.spec
    shown = [entry for entry in explorer.inputs.all() if entry.example or inputs is None or entry.id in inputs]
    return {
        **page_meta(atlas),
        "lenses": {**_LENSES, **page_meta(atlas)["lenses"]},
        "openUnits": _open_units(opened),
        "ablatesHeads": True,
        "pictures": [{"id": entry.id, "name": entry.picture.name} for entry in shown],
        "live": {
            "model": opened.name,
            "models": list(explorer.models),
            "steps": decoder.defaults.steps,
            "guidance": decoder.defaults.guidance,
            "denoises": decoder.defaults.scheduler != "none",
            "readsTokens": decoder.consumes == "image_tokens",
            "labels": opened.labels is not None,
            "vectors": [f"vector.{name}" for name in opened.vectors],
            "domain": opened.pair.provenance.domain,
            "ofRun": _of_run(explorer, view),
            "geometry": spec.geometry is None or spec.geometry.resize != "unknown",
        },
    }


def _of_run(explorer: Explorer, view: View) -> dict[str, Any] | None:
    """Inputs of the run and its target, which views of these inputs have unless they name another."""
    run, target = explorer.run, explorer.run_target
    if run is None or target is None or not explorer.belongs_to_run(replace(view, input=run.plan.pictures[0])):
        return None
    return {"inputs": list(run.plan.pictures), "text": target[0], "input": target[1]}


def _open_units(opened: OpenModel) -> dict[str, Any] | None:
    features = {name: entry.sae.n_features for name, entry in opened.autoencoders.items()}
    return {"features": features, "neurons": list(opened.neurons)} if features or opened.neurons else None


def live_input(explorer: Explorer, view: View) -> dict[str, Any]:
    """Data of an input, as the report has it, with nothing decoded yet."""
    atlas = explorer.atlas(view)
    reading = atlas.reading(view.input)
    outside = [words for _, words, _ in domain_warnings(atlas)]
    return {
        **picture_data(atlas, reading),
        "outside": f"{outside[0]}. {advice(explorer.model(view.model).name)}" if outside else "",
    }


def _first(explorer: Explorer) -> str:
    return explorer.inputs.examples()[0].id
