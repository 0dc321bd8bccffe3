"""Several runs of one pair made one: other inputs, sites or seeds of the same models and options."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steerlens.atlas.plan import Cell, Plan, compact
from steerlens.atlas.results import CellResult, LazyResults, Reading
from steerlens.errors import UsageError
from steerlens.progress import Progress
from steerlens.runs.manifest import (
    comparable,
    identity_difference,
    is_complete,
    known_by,
    plan_from_json,
    plan_to_json,
    read_manifest,
    readable_run,
)
from steerlens.runs.reader import part_cells, part_files, reading_files, stored_reading, stored_results
from steerlens.runs.store import RunWriter, open_run

_UNITED = ("plan", "inputs", "directions")
"""Of what a run is known by, that in which runs may differ and still be merged."""

_LENSES = ("diffusion", "steering", "control")

_LEVELS = 2
"""Largest mean difference, of 255 levels, of the pictures of one cell in two runs: batches of other sizes round
otherwise, and a decoder may carry a last digit far in a few pixels."""

_NUMBERS = 0.02
"""Largest difference of the numbers of one cell of two runs."""


@dataclass(frozen=True)
class Merged:
    """What a merge made.

    Attributes:
        folder: the new run.
        cells: pictures that it holds.
        planned: of how many.
        duplicates: pictures that more than one run held, counted once more for every further run.
        complete: whether nothing is missing.
    """

    folder: Path
    cells: int
    planned: int
    duplicates: int
    complete: bool


@dataclass(frozen=True, eq=False)
class _Source:
    folder: Path
    manifest: Mapping[str, Any]
    plan: Plan
    results: LazyResults

    @classmethod
    def open(cls, folder: Path) -> "_Source":
        """Opens a run.

        Raises:
            UsageError: if the folder holds no run.
            StoreError: if it cannot be read.
        """
        manifest = read_manifest(folder)
        with readable_run(folder):
            plan = plan_from_json(manifest["plan"])
            for needed in ("encoder", "decoder", *_UNITED):
                manifest[needed].items()
            return cls(folder, manifest, plan, stored_results(folder, plan.cells))


def merge_runs(folders: Sequence[str | Path], out: str | Path) -> "Generator[Progress, None, Merged]":
    """Merges runs into a new one, each cell once, and yields progress.

    A cell that several runs hold is taken from the first one. Runs that are not complete may be merged; so is then
    what comes out.

    Args:
        folders: the runs.
        out: the new run; one that an interrupted merge of the same runs left is gone on with.

    Raises:
        UsageError: if a folder holds no run, models or options differ, or two runs hold different results of one cell;
            nothing has been written then.
        StoreError: if a run cannot be read, or the new one cannot be written.
    """
    out, places = Path(out), [Path(folder) for folder in folders]
    if not places:
        raise UsageError("no run was given.")
    if out.resolve() in [place.resolve() for place in places]:
        raise UsageError(f"{out} is one of the runs to be merged; give a folder of its own for what comes out.")
    sources = [_Source.open(place) for place in dict.fromkeys(places)]
    identity = _united_identity(sources)
    owners, duplicates = dict[str, _Source](), 0
    for source in sources:
        duplicates += _check_duplicates(source, owners)
        for cell in source.results.cells:
            owners.setdefault(cell.key, source)
    parts = [(source, path) for source in sources for path in part_files(source.folder)]
    kept = {key: sources[0].manifest[key] for key in ("provenance", "geometry") if key in sources[0].manifest}
    facts = {"provenance": {}, **kept, "merged": [_origin(source) for source in sources]}
    readings = _reading_places(sources, identity["inputs"])
    total = len(readings) + len(parts)
    for id, found in readings.items():
        _united_reading(id, found)  # refuses a conflict while nothing has been written
    with open_run(out, identity, facts) as writer:
        yield Progress("merging", 0, total, "parts")
        for done, (id, found) in enumerate(readings.items(), start=1):
            if id not in writer.read:
                writer.add_reading(_united_reading(id, found))
            yield Progress("merging", done, total, "parts")
        for done, (source, path) in enumerate(parts, start=len(readings) + 1):
            _copy_part(writer, source, path, owners)
            yield Progress("merging", done, total, "parts")
        planned = len(plan_from_json(identity["plan"]))
        held = sum(len(source.results) for source in sources) - duplicates
        complete = held == planned or all(is_complete(one.manifest, len(one.results)) for one in sources)
        if complete and len(readings) == len(identity["inputs"]):
            writer.finish(**_seconds(sources))
    return Merged(out, held, planned, duplicates, complete)


def _united_identity(sources: Sequence[_Source]) -> dict[str, Any]:
    first = sources[0]
    for other in sources[1:]:
        _refuse_difference(first, other)
    identity = known_by(first.manifest)
    for key in ("inputs", "directions"):
        identity[key] = {name: value for source in reversed(sources) for name, value in source.manifest[key].items()}
    order = list(dict.fromkeys(name for source in sources for name in source.manifest["inputs"]))
    identity["inputs"] = {name: identity["inputs"][name] for name in order}
    return {**identity, "plan": plan_to_json(_united_plan([source.plan for source in sources]))}


def _refuse_difference(one: _Source, other: _Source) -> None:
    first, second = _must_agree(one, other), _must_agree(other, one)
    found = identity_difference(comparable(first, second), comparable(second, first))
    if found is not None:
        name, mine, theirs = found
        raise UsageError(
            f"{other.folder} cannot be merged with {one.folder}: {name} is {theirs} there, and {mine} here. Runs of "
            "other models or options do not make one run."
        )


def _must_agree(source: _Source, other: _Source) -> dict[str, Any]:
    """Of what a run is known by, what another one must share to be merged with it."""
    held, plan = known_by(source.manifest), source.manifest["plan"]
    shared = {key: value for key, value in held.items() if key not in _UNITED}
    # Not where the models lie, since hashes say which weights they have.
    models = {key: {name: held[key][name] for name in held[key] if name != "name"} for key in ("encoder", "decoder")}
    directions = {name: value for name, value in held["directions"].items() if name in other.manifest["directions"]}
    steering = {what: plan[what] for what in ("strength", "n_layers")}
    return {**shared, **models, "plan": steering, "directions": directions}


def _united_plan(plans: Sequence[Plan]) -> Plan:
    """All cells, in the order in which one plan would have them: by picture, seed and lens."""
    cells = dict.fromkeys(cell for plan in plans for cell in plan.cells)
    pictures = {id: number for number, id in enumerate(dict.fromkeys(cell.picture for cell in cells))}

    def place(cell: Cell) -> tuple[int, int, int]:
        return pictures[cell.picture], cell.seed, _LENSES.index(cell.lens)

    seeds = tuple(sorted({seed for plan in plans for seed in plan.seeds}))
    return Plan(compact(sorted(cells, key=place)), plans[0].strength, seeds, plans[0].n_layers)


def _check_duplicates(source: _Source, owners: Mapping[str, _Source]) -> int:
    """How many cells of a run an earlier one holds too, after making sure that they are the same."""
    rows: dict[Path, dict[str, int]] = {}
    count = 0
    for row, cell in enumerate(source.results.cells):
        owner = owners.get(cell.key)
        if owner is None:
            continue
        if owner.folder not in rows:
            rows[owner.folder] = {held.key: number for number, held in enumerate(owner.results.cells)}
        count += 1
        if not _same_result(owner.results[rows[owner.folder][cell.key]], source.results[row]):
            raise UsageError(
                f"{owner.folder} and {source.folder} hold different results of one cell, {cell.key}; which of them is "
                "right cannot be told here. Run one of them again, or leave it out."
            )
    return count


def _same_result(one: CellResult, other: CellResult) -> bool:
    numbers = [[held.rho, held.similarity, held.steered_similarity, held.fidelity] for held in (one, other)]
    if not np.allclose(*numbers, rtol=_NUMBERS, atol=_NUMBERS, equal_nan=True):
        return False
    if one.png == other.png:
        return True
    pictures = one.picture.astype(int), other.picture.astype(int)
    return pictures[0].shape == pictures[1].shape and bool(np.abs(pictures[0] - pictures[1]).mean() <= _LEVELS)


def _reading_places(sources: Sequence[_Source], ids: Mapping[str, Any]) -> dict[str, list[Path]]:
    files = [reading_files(source.folder) for source in sources]
    places = {id: [held[id] for held in files if id in held] for id in ids}
    return {id: found for id, found in places.items() if found}


def _united_reading(id: str, places: Sequence[Path]) -> Reading:
    """One reading with the labels of all: which sites are named depends on what a run looks at."""
    readings = [stored_reading(place) for place in places]
    first, labels = readings[0], {(label.site, label.rank): label for label in readings[0].labels}
    for reading, place in zip(readings[1:], places[1:], strict=True):
        if not torch.allclose(first.embedding, reading.embedding, rtol=_NUMBERS, atol=_NUMBERS):
            raise UsageError(
                f"{places[0]} and {place} hold different embeddings of one input, {first.picture.name} ({id}); which "
                "of them is right cannot be told here. Run one of them again, or leave it out."
            )
        labels = {(label.site, label.rank): label for label in reading.labels} | labels
    return replace(first, labels=tuple(sorted(labels.values(), key=lambda label: (label.site, label.rank))))


def _copy_part(writer: RunWriter, source: _Source, path: Path, owners: dict[str, _Source]) -> None:
    kept: list[CellResult] = []
    for result in part_cells(path):
        key = result.cell.key
        # Taken out, so that a cell that a run holds twice is written once.
        if owners.get(key) is source and owners.pop(key) and key not in writer.finished:
            kept.append(result)
    writer.add_cells(kept)


def _origin(source: _Source) -> dict[str, Any]:
    return {"folder": str(source.folder), "fingerprint": source.manifest.get("fingerprint")}


def _seconds(sources: Sequence[_Source]) -> dict[str, float]:
    known = [source.manifest.get("seconds") for source in sources]
    return {} if None in known else {"seconds": round(sum(filter(None, known)), 1)}
