"""Measured faithfulness of what a head's card shows, from finished studies of the same model."""

from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from steerlens.atlas import Faithfulness
from steerlens.errors import UsageError
from steerlens.studies.page import find_studies

CONTRAST, REAL, OWN = "contrast pair", "real pictures", "own write"
"""What is measured: pictures steered along and against a write, real pictures along the change, and identification."""

_MEASURES: Mapping[str, str] = {
    CONTRAST: "correlation with the effect of ablation on any name",
    REAL: "correlation with the effect of ablation on any name",
    OWN: "own write closer to the input than the same head's for another picture; guessing reaches 0.5",
}


def measured_faithfulness(model: str, folder: Path | None = None) -> tuple[Faithfulness, ...]:
    """Reads the faithfulness that studies measured on a model; empty if none did.

    Args:
        model: name of the pair.
        folder: folder of finished studies; by default the figures that come with steerlens for its own pairs.

    Raises:
        UsageError: if the folder holds no finished study, or one of another model.
        StoreError: if a summary cannot be read.
    """
    name = Path(model).name
    if folder is not None:
        return _of_folder(name, folder)
    packaged = files("steerlens.studies").joinpath("measured", name)
    if not name or not packaged.is_dir():
        return ()
    with as_file(packaged) as path:
        return _of_folder(name, path)


def _of_folder(model: str, folder: Path) -> tuple[Faithfulness, ...]:
    found: dict[str, Faithfulness] = {}
    for finished in find_studies(folder):
        if finished.study.name not in ("lenses", "identification"):
            continue
        if finished.model and finished.model != model:
            raise UsageError(f"{folder} holds studies of {finished.model}, not of {model}; give studies of this model.")
        summary = finished.summary
        if finished.study.name == "lenses":
            for of in (CONTRAST, REAL):
                row = summary.row(of)
                # A card shows decoded pictures: figures of a study without a decoder say nothing of them.
                if row is not None and row.view == "decoded":
                    found[of] = _faithfulness(of, row.correlation, summary.heads.get(of, {}), summary.n_pictures)
        else:
            found[OWN] = _faithfulness(OWN, summary.main.share, summary.heads, summary.n_pictures)
    return tuple(found[of] for of in _MEASURES if of in found)


def _faithfulness(of: str, estimate: Any, heads: Mapping[str, float], pictures: int) -> Faithfulness:
    return Faithfulness(of, _MEASURES[of], estimate.value, estimate.low, estimate.high, heads, pictures)
