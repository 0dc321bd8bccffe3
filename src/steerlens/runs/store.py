"""Runs on disk: a directory with all results of a sweep, which a second call can resume.

    manifest.json                    identity of the run (models, options, inputs), versions, whether it is complete
    SHA256SUMS                       hashes of the files in the folders below
    README.md                        tables and their files, for the Hugging Face datasets library
    inputs/ID.parquet                the input picture and its reading
    labels/ID.parquet                its Logit Lens labels
    units/ID.parquet                 its neurons and features, in runs that look at any
    tensors/ID.safetensors           its embedding, attention maps and head norms
    cells/part-000000.parquet        decoded pictures with their numbers, part by part
    tensors/part-000000.safetensors  embeddings that were decoded, and embeddings of the decoded pictures
    cards/ID.json                    cards of its best heads, if they were requested
    report.html, figures/            drawn from the files above

`pandas.read_parquet(RUN / "cells")` reads all parts: a folder holds tables of one kind, and nothing else. A run of an
earlier version, with labels and tensors among the tables, is resumed as it began.

Every file is written under a temporary name and renamed. A part counts as stored once its parquet file exists.
"""

import json
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from steerlens.atlas import CellResult, Reading
from steerlens.errors import UsageError
from steerlens.report.notebook import NotebookAtlas
from steerlens.runs.cards import CARDS, StoredCards
from steerlens.runs.hashes import append_hashes, begin_hashes, tidy_hashes
from steerlens.runs.manifest import (
    FORMAT,
    check_fingerprint,
    comparable,
    decoder_spec,
    encoder_spec,
    fingerprint,
    identity_as_now,
    identity_difference,
    is_complete,
    known_by,
    plan_from_json,
    read_manifest,
    readable_run,
    stored_manifest,
    write_manifest,
)
from steerlens.runs.reader import (
    LABELS,
    TENSORS,
    UNITS,
    beside,
    check_hashes,
    finished_keys,
    has_tables_alone,
    has_units,
    part_files,
    reading_files,
    refuse_inside_run,
    stored_readings,
    stored_results,
)
from steerlens.runs.tables import cell_columns, cells_to_bytes, reading_to_bytes
from steerlens.storage import LOCK_FILE, OwnedFolder, atomic_write, make_folder, only_writer, storing

_INSIDE = ("inputs", "cells", LABELS, TENSORS)
"""Folders of a run directory."""

_INSIDE_BEFORE = ("inputs", "cells")
"""Folders of a run that an earlier version began."""

_OWN = re.compile(
    r"SHA256SUMS|README\.md|report\.html|part-\d+\.(parquet|safetensors)|[^.]+(\.labels)?\.parquet|[^.]+\.safetensors|[^.]+\.json"
)
"""Names of the files of a run."""

_UNIT_KINDS = ("neuron", "feature", "error", "bias")

_DATASET_CARD = b"""---
configs:
- config_name: pictures
  data_files: cells/*.parquet
  default: true
- config_name: inputs
  data_files: inputs/*.parquet
- config_name: labels
  data_files: labels/*.parquet
%s---

A run of steerlens: open `report.html`, or load this folder with
`datasets.load_dataset`.
"""
"""Declares the tables; without it the datasets library takes all parquet files for one table, and fails."""

_DATASET_UNITS = b"- config_name: units\n  data_files: units/*.parquet\n"


class RunWriter:
    """Writer of a run, part by part; see `open_run`.

    Attributes:
        folder: the run directory.
        finished: keys of the cells that were stored when the run was opened.
        read: ids of the inputs whose readings were stored then.
        resumed: True if an earlier call began the run.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Mapping[str, Any],
        finished: frozenset[str] = frozenset(),
        read: frozenset[str] = frozenset(),
        *,
        resumed: bool = False,
    ) -> None:
        self.folder, self.finished, self.read, self.resumed = folder, finished, read, resumed
        self._own = OwnedFolder(folder)
        self._manifest = dict(manifest)
        self._cells = len(finished)
        self._columns = cell_columns(plan_from_json(manifest["plan"]).lenses if "plan" in manifest else ())
        self._next_part = 1 + max((_part_number(path) for path in part_files(folder)), default=-1)

    @property
    def complete(self) -> bool:
        """True if nothing is left to decode: the run was finished, and no part of it has been removed since."""
        return is_complete(self._manifest, self._cells)

    def add_cells(self, results: Sequence[CellResult]) -> None:
        """Stores finished cells.

        Raises:
            StoreError: if they cannot be written; parts stored before stay.
        """
        if not results:
            return
        table, embeddings = cells_to_bytes(results, self._columns)
        name = f"part-{self._next_part:06d}"
        self._write(self._own.path("cells", f"{name}.parquet"), table, embeddings)
        self._next_part += 1
        self._cells += len(results)

    def add_reading(self, reading: Reading) -> None:
        """Stores the reading of one input picture.

        Raises:
            StoreError: if it cannot be written.
        """
        files = reading_to_bytes(reading, units=has_units(self.folder))
        self._write(self._own.path("inputs", f"{reading.id}.parquet"), *files)

    def _write(self, table: Path, *contents: bytes) -> None:
        """Writes a part or a reading, its table last: the table marks it as stored."""
        files = {path.relative_to(self.folder): data for path, data in zip(beside(table), contents, strict=True)}
        append_hashes(self.folder, {path.as_posix(): data for path, data in files.items()})
        for path, data in reversed(files.items()):
            self._own.write(data, *path.parts)

    def finish(self, **facts: Any) -> None:
        """Marks the run as complete, and adds facts such as `seconds` to its manifest.

        The number of cells is stored too, since a run with a selection has fewer than planned.

        Raises:
            StoreError: if the manifest cannot be written; the earlier manifest stays.
        """
        if not self._manifest.get("complete"):
            self._manifest.update(complete=True, decoded=self._cells, **facts)
            write_manifest(self.folder, self._manifest)


@contextmanager
def open_run(folder: Path, identity: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> Generator[RunWriter]:
    """Opens a directory for a new or an earlier run, and locks it while it is open.

    Args:
        folder: the run directory.
        identity: models, options and inputs; an earlier run is resumed only if its identity is the same.
        facts: other entries of the manifest.

    Raises:
        UsageError: if the folder contains another run, or other files, or is inside a run.
        StoreError: if it cannot be written, or another process is writing to it.
    """
    wanted: dict[str, Any] = json.loads(json.dumps(identity))
    manifest = {"format": FORMAT, "fingerprint": fingerprint(wanted), "complete": False, **(facts or {}), **wanted}
    refuse_inside_run(folder)
    with storing(folder):
        make_folder(folder)
        _refuse_foreign(folder)  # before the lock, which would add a file to a folder of somebody else's
    with only_writer(folder):
        before = stored_manifest(folder)
        _refuse_foreign(folder)
        if before is not None and before.get("fingerprint") != manifest["fingerprint"]:
            earlier = identity_as_now(folder, known_by(before))
            stored, requested = comparable(earlier, wanted), comparable(wanted, earlier)
            if stored != requested:
                _refuse_other(folder, stored, requested)
        with storing(folder):
            new = before is None or has_tables_alone(folder)
            for inside in _INSIDE if new else _INSIDE_BEFORE:  # before the manifest, so that no run lacks them
                OwnedFolder(folder).make(inside)
            if before is None and _looks_at_units(manifest):
                OwnedFolder(folder).make(UNITS)
        if before is None:
            write_manifest(folder, manifest)
            begin_hashes(folder)
        if not (folder / "README.md").exists():  # an earlier process may have died before writing it
            atomic_write(folder / "README.md", _DATASET_CARD % (_DATASET_UNITS if has_units(folder) else b""))
        if before is not None and before.get("fingerprint") == manifest["fingerprint"]:
            check_fingerprint(folder, before)
        _remove_unfinished(folder)
        tidy_hashes(folder)
        check_hashes(folder)
        finished, read = finished_keys(folder), frozenset(reading_files(folder))
        # A resumed run keeps the facts of its first call.
        yield RunWriter(folder, before or manifest, finished, read, resumed=before is not None)


def _looks_at_units(manifest: Mapping[str, Any]) -> bool:
    """True if the plan of a manifest has a neuron or a part of a sparse autoencoder."""
    return "plan" in manifest and not plan_from_json(manifest["plan"]).kinds.isdisjoint(_UNIT_KINDS)


def _refuse_other(folder: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> NoReturn:
    difference = identity_difference(stored, wanted)
    name, before, now = difference or ("layout", "that of another version", "that of this version")
    raise UsageError(
        f"{folder} contains a run with another {name}: {before}, while this command has {now}; give another --out, or "
        "remove that folder."
    )


def _remove_unfinished(folder: Path) -> None:
    """Removes files that a killed process had not finished writing; the lock ensures that no other process is writing.

    They are recognised by the temporary names that steerlens gives to files of a run; any other file stays.
    """
    own = OwnedFolder(folder)
    with storing(folder):
        for part in (own, *(own.inside(name) for name in (*_INSIDE, UNITS, CARDS))):
            for path in part.unfinished(_OWN):
                path.unlink(missing_ok=True)


def _refuse_foreign(folder: Path) -> None:
    if (folder / "manifest.json").exists():
        return
    # A process may have died before it wrote the first file.
    if any(not _may_come_first(path) for path in folder.iterdir()):
        raise UsageError(f"{folder} contains files that are not a run of steerlens; give another --out.")


def _may_come_first(path: Path) -> bool:
    empty = path.name in (*_INSIDE, UNITS) and path.is_dir() and not any(path.iterdir())
    return empty or path.name == LOCK_FILE or path.name.startswith(".manifest.json.")


def load_run(folder: str | Path) -> NotebookAtlas:
    """Loads the atlas of a run directory, finished or not; pictures and readings are read on access.

    Raises:
        UsageError: if the folder contains no run.
        StoreError: if the run cannot be read.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    with readable_run(folder):
        plan = plan_from_json(manifest["plan"])
        check_fingerprint(folder, manifest)
        check_hashes(folder)
        readings = stored_readings(folder, plan.pictures)
        results = stored_results(folder, plan.cells)
        manifest["complete"] = is_complete(manifest, len(results))
        return NotebookAtlas(
            encoder=encoder_spec(manifest["encoder"], manifest.get("geometry")),
            decoder=decoder_spec(manifest["decoder"]),
            plan=plan,
            readings=readings,
            results=results,
            manifest=manifest,
            cards=StoredCards(folder, plan.pictures),
        )


def _part_number(path: Path) -> int:
    return int(path.stem.removeprefix("part-"))
