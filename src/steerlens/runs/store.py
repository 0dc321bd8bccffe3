"""Runs on disk: a directory that holds all results of a sweep, and that a second call goes on with.

    manifest.json                    identity of the run (models, options, inputs), versions, whether it is complete
    README.md                        which files belong to one table, for the Hugging Face datasets library
    inputs/ID.parquet                the input picture and its reading
    inputs/ID.labels.parquet         its Logit Lens labels
    inputs/ID.safetensors            its embedding, attention maps and head norms
    cells/part-000000.parquet        decoded pictures with their numbers, finished part by finished part
    cells/part-000000.safetensors    the decoded embeddings, and those of the re-encoded pictures
    report.html, figures/            drawn from the above

Every file is written under a temporary name and renamed. A part counts once its parquet file is there.
"""

import json
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from steerlens.atlas.atlas import Atlas
from steerlens.atlas.results import CellResult, Reading
from steerlens.errors import UsageError
from steerlens.report.notebook import NotebookAtlas
from steerlens.runs.manifest import (
    FORMAT,
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
from steerlens.runs.reader import finished_keys, part_files, reading_files, stored_readings, stored_results
from steerlens.runs.tables import cells_to_bytes, reading_to_bytes
from steerlens.storage.files import atomic_write, make_folder, storing
from steerlens.storage.folder import OwnedFolder
from steerlens.storage.lock import LOCK_FILE, only_writer

_INSIDE = ("inputs", "cells")
"""The folders of a run directory."""

_OWN = re.compile(
    r"manifest\.json|README\.md|report\.html|part-\d+\.(parquet|safetensors)|[^.]+(\.labels)?\.parquet|[^.]+\.safetensors"
)
"""Names of the files of a run."""

_DATASET_CARD = b"""---
configs:
- config_name: pictures
  data_files: cells/*.parquet
  default: true
- config_name: inputs
  data_files: inputs/????????????.parquet
- config_name: labels
  data_files: inputs/*.labels.parquet
---

A run of steerlens: open `report.html`, or load this folder with
`datasets.load_dataset`.
"""
"""Without it the datasets library takes all parquet files for one table, and refuses the folder."""


class RunWriter:
    """Writer of a run, one finished part after another; made by `open_run`.

    Attributes:
        folder: where the run is.
        finished: keys of the cells that it held when it was opened.
        read: ids of the inputs whose reading it held.
        resumed: whether an earlier call began the run.
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
        self._next_part = 1 + max((_part_number(path) for path in part_files(folder)), default=-1)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to decode: the run was finished, and no part of it has been removed since."""
        return is_complete(self._manifest, self._cells)

    def add_cells(self, results: Sequence[CellResult]) -> None:
        """Stores finished cells.

        Raises:
            StoreError: if they cannot be written; parts stored before stay.
        """
        if not results:
            return
        table, embeddings = cells_to_bytes(results)
        name = f"part-{self._next_part:06d}"
        # The parquet file comes last: it is what makes the part count.
        self._own.write(embeddings, "cells", f"{name}.safetensors")
        self._own.write(table, "cells", f"{name}.parquet")
        self._next_part += 1
        self._cells += len(results)

    def add_reading(self, reading: Reading) -> None:
        """Stores the reading of one input picture.

        Raises:
            StoreError: if it cannot be written.
        """
        table, labels, tensors = reading_to_bytes(reading)
        self._own.write(tensors, "inputs", f"{reading.id}.safetensors")
        self._own.write(labels, "inputs", f"{reading.id}.labels.parquet")
        self._own.write(table, "inputs", f"{reading.id}.parquet")

    def finish(self, **facts: Any) -> None:
        """Marks the run as complete and adds facts such as seconds to its manifest, once.

        The number of its cells is one of them: a run with a selection has fewer than were planned.

        Raises:
            StoreError: if the manifest cannot be written; the one before stays.
        """
        if not self._manifest.get("complete"):
            self._manifest.update(complete=True, decoded=self._cells, **facts)
            write_manifest(self.folder, self._manifest)


@contextmanager
def open_run(folder: Path, identity: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> Generator[RunWriter]:
    """Opens a directory for a new or an earlier run, and locks it while it is open.

    Args:
        folder: where to write.
        identity: models, options and inputs; an earlier run goes on only if they are the same.
        facts: other entries of the manifest.

    Raises:
        UsageError: if the folder holds another run, or other files.
        StoreError: if it cannot be written, or another process is writing to it.
    """
    wanted: dict[str, Any] = json.loads(json.dumps(identity))
    manifest = {"format": FORMAT, "fingerprint": fingerprint(wanted), "complete": False, **(facts or {}), **wanted}
    with storing(folder):
        make_folder(folder)
        _refuse_foreign(folder)  # before the lock, which would be one more file in a folder of somebody else's
    with only_writer(folder):
        before = stored_manifest(folder)
        _refuse_foreign(folder)
        if before is not None and before.get("fingerprint") != manifest["fingerprint"]:
            there = identity_as_now(folder, known_by(before))
            stored, asked = comparable(there, wanted), comparable(wanted, there)
            if stored != asked:
                _refuse_other(folder, stored, asked)
        with storing(folder):
            for inside in _INSIDE:  # before there is a manifest to say that this is a run, which must not lose them
                OwnedFolder(folder).make(inside)
        if before is None:
            write_manifest(folder, manifest)
        if not (folder / "README.md").exists():  # a process may have died before it wrote it
            atomic_write(folder / "README.md", _DATASET_CARD)
        _sweep_up(folder)
        finished, read = finished_keys(folder), frozenset(reading_files(folder))
        # A run that goes on keeps what its manifest says of how it began.
        yield RunWriter(folder, before or manifest, finished, read, resumed=before is not None)


def _refuse_other(folder: Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> NoReturn:
    name, stored, asked_for = identity_difference(there, wanted) or ("layout", "that of another version", "this one's")
    raise UsageError(
        f"{folder} holds a run with another {name}: {stored} there, and {asked_for} was asked for; give another --out, "
        "or remove that folder."
    )


def _sweep_up(folder: Path) -> None:
    """Removes what a killed process had not finished writing; the lock says that no other one is writing.

    Known by the temporary names that steerlens gives to files of a run; anything else stays.
    """
    own = OwnedFolder(folder)
    with storing(folder):
        for place in (own, *(own.inside(name) for name in _INSIDE)):
            for path in place.unfinished(_OWN):
                path.unlink(missing_ok=True)


def _refuse_foreign(folder: Path) -> None:
    if (folder / "manifest.json").exists():
        return
    # A process may have died before it had written the very first file.
    if any(not _may_come_first(path) for path in folder.iterdir()):
        raise UsageError(f"{folder} holds files that are no run of steerlens; give another --out.")


def _may_come_first(path: Path) -> bool:
    empty = path.name in _INSIDE and path.is_dir() and not any(path.iterdir())
    return empty or path.name == LOCK_FILE or path.name.startswith(".manifest.json.")


def load_run(folder: str | Path) -> Atlas:
    """The atlas of a run directory, finished or not; pictures and readings are read when they are used.

    Raises:
        UsageError: if the folder holds no run.
        StoreError: if the run cannot be read.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    with readable_run(folder):
        plan = plan_from_json(manifest["plan"])
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
        )


def _part_number(path: Path) -> int:
    return int(path.stem.removeprefix("part-"))
