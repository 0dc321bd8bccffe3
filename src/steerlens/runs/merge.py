"""Merging of runs of the same models and options that differ in inputs, sites or seeds."""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steerlens.atlas import LENS_NAMES, Cell, CellResult, HeadCard, InputCards, LazyResults, Plan, Reading, compact
from steerlens.errors import StoreError, UsageError
from steerlens.printable import json_without_folders
from steerlens.progress import Progress
from steerlens.runs.cards import StoredCards, write_cards
from steerlens.runs.manifest import (
    check_fingerprint,
    comparable,
    identity_difference,
    is_complete,
    known_by,
    plan_from_json,
    plan_to_json,
    read_manifest,
    readable_run,
)
from steerlens.runs.reader import check_hashes, part_cells, part_files, reading_files, stored_reading, stored_results
from steerlens.runs.store import RunWriter, open_run
from steerlens.sites import Site

_MODELS = ("encoder", "decoder")

_UNITED = ("plan", "inputs", "directions")
"""Keys of the identity in which runs may differ and still be merged."""

_LEVELS = 2
"""Largest mean difference, of 255 levels, between two runs' pictures of a cell: rounding depends on the batch size, and
a decoder may amplify it in a few pixels."""

_NUMBERS = 0.02
"""Largest difference between two runs' numbers of a cell."""


@dataclass(frozen=True)
class Merged:
    """Outcome of a merge.

    Attributes:
        folder: the new run.
        cells: number of its pictures.
        planned: number of planned pictures.
        duplicates: number of pictures that an earlier run contains too, summed over runs.
        complete: True if nothing is missing.
        cards: number of inputs with cards of heads.
        cards_left_out: number of inputs some of whose cards were left out, since their strength, bank or measured
            faithfulness differs from that of an earlier run.
        cards_damaged: number of inputs some of whose cards were left out, since their file is damaged.
    """

    folder: Path
    cells: int
    planned: int
    duplicates: int
    complete: bool
    cards: int = 0
    cards_left_out: int = 0
    cards_damaged: int = 0


@dataclass(frozen=True, eq=False)
class _Source:
    folder: Path
    manifest: Mapping[str, Any]
    plan: Plan
    results: LazyResults
    cards: StoredCards

    @classmethod
    def open(cls, folder: Path) -> "_Source":
        """Opens a run.

        Raises:
            UsageError: if the folder contains no run.
            StoreError: if it cannot be read.
        """
        manifest = read_manifest(folder)
        with readable_run(folder):
            plan = plan_from_json(manifest["plan"])
            for needed in (*_MODELS, *_UNITED):
                manifest[needed].items()
            check_fingerprint(folder, manifest)
            check_hashes(folder)
            return cls(folder, manifest, plan, stored_results(folder, plan.cells), StoredCards(folder, plan.pictures))


def merge_runs(folders: Sequence[str | Path], out: str | Path) -> "Generator[Progress, None, Merged]":
    """Merges runs into a new one, each cell once, and yields progress.

    A cell that several runs contain is taken from the first of them. Incomplete runs may be merged; the result is then
    incomplete too. Cards of heads come along: an input has those of all runs that made them with equal options. Damaged
    cards are left out, since they can be made again for the new run.

    Args:
        folders: the runs.
        out: the new run; an interrupted merge of the same runs is resumed.

    Raises:
        UsageError: if a folder contains no run, models or options differ, or two runs contain different results of a
            cell; nothing has been written then.
        StoreError: if a run cannot be read, or the new one cannot be written.
    """
    out, runs = Path(out), [Path(folder) for folder in folders]
    if not runs:
        raise UsageError("no runs were given.")
    if out.resolve() in [folder.resolve() for folder in runs]:
        raise UsageError(f"{out} is one of the runs to be merged; give another folder for the merged run.")
    sources = [_Source.open(folder) for folder in dict.fromkeys(runs)]
    identity = _united_identity(sources)
    owners, duplicates = dict[str, _Source](), 0
    for source in sources:
        duplicates += _check_duplicates(source, owners)
        for cell in source.results.cells:
            owners.setdefault(cell.key, source)
    parts = [(source, path) for source in sources for path in part_files(source.folder)]
    kept = {key: sources[0].manifest[key] for key in ("provenance", "geometry") if key in sources[0].manifest}
    kept = json_without_folders(kept)  # a merged run is made to be shared, and loads no model
    facts = {"provenance": {}, **kept, **_saes(sources), "merged": [_origin(source) for source in sources]}
    readings = _reading_files(sources, identity["inputs"])
    with_cards = [id for id in identity["inputs"] if any(id in source.cards for source in sources)]
    total, united = len(readings) + len(parts) + len(with_cards), list[_UnitedCards]()
    for id, files in readings.items():
        _united_reading(id, files)  # refuses a conflict before anything is written
    with open_run(out, identity, facts) as writer:
        yield Progress("merging", 0, total, "parts")
        for done, (id, files) in enumerate(readings.items(), start=1):
            if id not in writer.read:
                writer.add_reading(_united_reading(id, files))
            yield Progress("merging", done, total, "parts")
        for done, (source, path) in enumerate(parts, start=len(readings) + 1):
            _copy_part(writer, source, path, owners)
            yield Progress("merging", done, total, "parts")
        merged_cards = StoredCards(out, with_cards)
        for done, id in enumerate(with_cards, start=len(readings) + len(parts) + 1):
            of_input = _united_cards(id, [source.cards for source in sources if id in source.cards])
            united.append(of_input)
            key, cards = of_input.key, of_input.cards
            if cards and (merged_cards.key_of(id) != key or len(merged_cards[id].heads) != len(cards.heads)):
                write_cards(out, id, cards, key)
            yield Progress("merging", done, total, "parts")
        planned = len(plan_from_json(identity["plan"]))
        cells = sum(len(source.results) for source in sources) - duplicates
        decoded = cells == planned or all(is_complete(source.manifest, len(source.results)) for source in sources)
        complete = decoded and len(readings) == len(identity["inputs"])
        if complete:
            writer.finish(**_seconds(sources))
    return Merged(
        out,
        cells,
        planned,
        duplicates,
        complete,
        cards=sum(of_input.cards is not None for of_input in united),
        cards_left_out=sum(of_input.differing > 0 for of_input in united),
        cards_damaged=sum(of_input.damaged > 0 for of_input in united),
    )


def _united_identity(sources: Sequence[_Source]) -> dict[str, Any]:
    first = sources[0]
    for other in sources[1:]:
        _refuse_difference(first, other)
    identity = known_by(first.manifest)
    for part in ("encoder", "decoder"):
        identity[part] = json_without_folders(identity[part])
    for key in ("inputs", "directions"):
        identity[key] = {name: value for source in reversed(sources) for name, value in source.manifest[key].items()}
    order = list(dict.fromkeys(name for source in sources for name in source.manifest["inputs"]))
    placed = [source.manifest["vector_at"] for source in sources if "vector_at" in source.manifest]
    identity |= {"vector_at": placed[0]} if placed else {}
    identity["inputs"] = {name: identity["inputs"][name] for name in order}
    return {**identity, "plan": plan_to_json(_united_plan([source.plan for source in sources]))}


def _refuse_difference(first: _Source, other: _Source) -> None:
    foils = any("foil" in source.plan.lenses for source in (first, other))
    if foils and list(first.manifest["inputs"]) != list(other.manifest["inputs"]):
        raise UsageError(
            f"{other.folder} cannot be merged with {first.folder}: foils show the writes for other inputs of their own "
            "run, and these runs have different inputs. Make one run of all inputs, or runs without foils (--foils 0)."
        )
    agreed, of_other = _must_agree(first, other), _must_agree(other, first)
    difference = identity_difference(comparable(agreed, of_other), comparable(of_other, agreed))
    if difference is not None:
        name, in_first, in_other = difference
        raise UsageError(
            f"{other.folder} cannot be merged with {first.folder}: its {name} is {in_other}, not {in_first}. Only runs "
            "of the same models and options can be merged."
        )


def _must_agree(source: _Source, other: _Source) -> dict[str, Any]:
    """Part of a run's identity that another run must share to be merged with it."""
    identity, plan = known_by(source.manifest), source.manifest["plan"]
    shared = {key: value for key, value in identity.items() if key not in _UNITED}
    # Names of models may differ: hashes identify their weights.
    models = {key: {name: value for name, value in identity[key].items() if name != "name"} for key in _MODELS}
    named_by_other = other.manifest["directions"]
    directions = {name: value for name, value in identity["directions"].items() if name in named_by_other}
    if "vector_at" not in other.manifest:  # it adds directions nowhere
        shared.pop("vector_at", None)
    steering = {key: plan[key] for key in ("strength", "n_layers")}
    return {**shared, **models, "plan": steering, "directions": directions}


def _united_plan(plans: Sequence[Plan]) -> Plan:
    """All cells in the order of a single plan: by picture, seed and lens."""
    cells = dict.fromkeys(cell for plan in plans for cell in plan.cells)
    pictures = {id: number for number, id in enumerate(dict.fromkeys(cell.picture for cell in cells))}

    def order(cell: Cell) -> tuple[int, int, int]:
        return pictures[cell.picture], cell.seed, LENS_NAMES.index(cell.lens)

    seeds = tuple(sorted({seed for plan in plans for seed in plan.seeds}))
    return Plan(compact(sorted(cells, key=order)), plans[0].strength, seeds, plans[0].n_layers)


def _check_duplicates(source: _Source, owners: Mapping[str, _Source]) -> int:
    """Counts the cells of a run that earlier runs contain too, after checking that their results agree."""
    rows: dict[Path, dict[str, int]] = {}
    count = 0
    for row, cell in enumerate(source.results.cells):
        owner = owners.get(cell.key)
        if owner is None:
            continue
        if owner.folder not in rows:
            rows[owner.folder] = {earlier.key: number for number, earlier in enumerate(owner.results.cells)}
        count += 1
        if not _same_result(owner.results[rows[owner.folder][cell.key]], source.results[row]):
            raise UsageError(
                f"{owner.folder} and {source.folder} contain different results of the same cell, {cell.key}; steerlens "
                "cannot tell which is right. Run one of them again, or leave it out."
            )
    return count


def _same_result(first: CellResult, second: CellResult) -> bool:
    numbers = [[cell.rho, cell.similarity, cell.steered_similarity, cell.fidelity] for cell in (first, second)]
    if not np.allclose(*numbers, rtol=_NUMBERS, atol=_NUMBERS, equal_nan=True):
        return False
    if first.png == second.png:
        return True
    pictures = first.picture.astype(int), second.picture.astype(int)
    return pictures[0].shape == pictures[1].shape and bool(np.abs(pictures[0] - pictures[1]).mean() <= _LEVELS)


def _reading_files(sources: Sequence[_Source], ids: Mapping[str, Any]) -> dict[str, list[Path]]:
    files = [reading_files(source.folder) for source in sources]
    of_id = {id: [of_run[id] for of_run in files if id in of_run] for id in ids}
    return {id: paths for id, paths in of_id.items() if paths}


def _united_reading(id: str, paths: Sequence[Path]) -> Reading:
    """A reading with the labels and units of all: runs that look at other sites label other sites."""
    readings = [stored_reading(path) for path in paths]
    first, labels = readings[0], {(label.site, label.rank): label for label in readings[0].labels}
    units = {unit.site: unit for reading in reversed(readings) for unit in reading.units}
    for reading, path in zip(readings[1:], paths[1:], strict=True):
        if not torch.allclose(first.embedding, reading.embedding, rtol=_NUMBERS, atol=_NUMBERS):
            raise UsageError(
                f"{paths[0]} and {path} contain different embeddings of the same input, {first.picture.name} ({id}); "
                "steerlens cannot tell which is right. Run one of them again, or leave it out."
            )
        labels = {(label.site, label.rank): label for label in reading.labels} | labels
    ordered = tuple(sorted(labels.values(), key=lambda label: (label.site, label.rank)))
    return replace(first, labels=ordered, units=tuple(units.values()))


@dataclass(frozen=True)
class _UnitedCards:
    """Cards of an input from several runs.

    Attributes:
        key: the key of the first run's readable cards.
        cards: the cards of all runs; None if none can be read.
        differing: number of runs whose cards were made with other options than the first.
        damaged: number of runs whose cards cannot be read.
    """

    key: str = ""
    cards: InputCards | None = None
    differing: int = 0
    damaged: int = 0


def _united_cards(id: str, stored: Sequence[StoredCards]) -> _UnitedCards:
    """Unites the cards of an input.

    Cards are left out if their options differ from those of the first, since an input's cards state one strength and
    one bank. Of a head with several cards, the first is taken.
    """
    readable: list[tuple[str, InputCards]] = []
    for cards in stored:
        with suppress(StoreError):
            readable.append(cards.read(id))
    damaged = len(stored) - len(readable)
    if not readable:
        return _UnitedCards(damaged=damaged)
    (key, first), *rest = readable
    agreeing = [first, *(cards for _, cards in rest if _same_options(first, cards))]
    heads: dict[Site, HeadCard] = {}
    for cards in agreeing:
        for card in cards.heads:
            heads.setdefault(card.site, card)
    return _UnitedCards(key, replace(first, heads=tuple(heads.values())), len(readable) - len(agreeing), damaged)


def _same_options(first: InputCards, other: InputCards) -> bool:
    same = (first.strength, first.bank, first.faithfulness) == (other.strength, other.bank, other.faithfulness)
    if first.chance is None or other.chance is None:
        return same and first.chance is other.chance
    return same and bool(np.isclose(first.chance, other.chance, rtol=_NUMBERS, atol=_NUMBERS))


def _copy_part(writer: RunWriter, source: _Source, path: Path, owners: dict[str, _Source]) -> None:
    kept: list[CellResult] = []
    for result in part_cells(path):
        key = result.cell.key
        # Removed from the owners, so that a cell that a run contains twice is written once.
        if owners.get(key) is source and owners.pop(key) and key not in writer.finished:
            kept.append(result)
    writer.add_cells(kept)


def _saes(sources: Sequence[_Source]) -> dict[str, Any]:
    """Facts about the autoencoders of the runs."""
    known: dict[str, list[Mapping[str, Any]]] = {}
    for source in sources:
        for name, facts in (source.manifest.get("saes") or {}).items():
            known.setdefault(name, []).append(facts)
    return {"saes": {name: _united_sae(facts) for name, facts in known.items()}} if known else {}


def _united_sae(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Unites the facts about an autoencoder: of several fits, each to the inputs of one run, the poorest is kept."""
    if len(facts) == 1:
        return dict(facts[0])

    def goodness(fit: Mapping[str, Any]) -> tuple[bool, float]:
        explained = fit.get("explained_variance")
        return not fit.get("is_poor"), -math.inf if explained is None else float(explained)

    poorest = min((known.get("fit") or {} for known in facts), key=goodness)
    tokens = (
        f"{str(poorest.get('tokens', 'readout tokens')).partition(';')[0]}; the poorest fit of {len(facts)} merged runs"
    )
    active = {id: count for known in reversed(facts) for id, count in (known.get("active") or {}).items()}
    return {**facts[0], "fit": {**poorest, "tokens": tokens}, "active": active}


def _origin(source: _Source) -> dict[str, Any]:
    return {"folder": source.folder.resolve().name, "fingerprint": source.manifest.get("fingerprint")}


def _seconds(sources: Sequence[_Source]) -> dict[str, float]:
    known = [source.manifest.get("seconds") for source in sources]
    return {} if None in known else {"seconds": round(sum(filter(None, known)), 1)}
