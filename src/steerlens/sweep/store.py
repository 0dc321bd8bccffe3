"""A run on disk: a directory with everything needed to look again, which a second call goes on with.

    manifest.json                    what was asked for, of which models, with which versions
    README.md                        which files belong to one table, for the Hugging Face datasets library
    inputs/ID.parquet                the input picture and what was read from it before decoding
    inputs/ID.labels.parquet         its Logit Lens labels
    inputs/ID.safetensors            its embedding, attention maps and head norms
    cells/part-000000.parquet        decoded pictures with their numbers, finished part by finished part
    cells/part-000000.safetensors    the embeddings asked for and those of the pictures that came out
    report.html, figures/            drawn from the above

Every file is written under a temporary name and renamed. A part counts once its parquet file is there.
"""

import fcntl
import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from steerlens.decoders.base import DecodeOptions, DecoderSpec, TokenSource
from steerlens.encoders.base import EncoderSpec
from steerlens.errors import StoreError, UsageError
from steerlens.lenses.strength import Strength
from steerlens.sites import Site
from steerlens.sweep.atlas import Atlas, CellResult, Reading
from steerlens.sweep.files import atomic_write, storing
from steerlens.sweep.plan import Cell, Plan
from steerlens.sweep.stored import finished_keys, part_files, reading_files, stored_readings, stored_results
from steerlens.sweep.tables import cells_to_bytes, reading_to_bytes

FORMAT = 1
"""Version of the layout of a run directory."""


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


def fingerprint(identity: Mapping[str, Any]) -> str:
    """A hash of what must be equal for two calls to add to one run: models, options, inputs."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


class RunWriter:
    """Writes a run, one finished part after another; made by `open_run`.

    Attributes:
        folder: where the run is.
        finished: keys of the cells that were there when it was opened.
        read: ids of the inputs whose reading was there.
        resumed: whether the run was there before.
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
        self._manifest = dict(manifest)
        self._held = len(finished)
        self._next_part = 1 + max((_part_number(path) for path in part_files(folder)), default=-1)

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
        atomic_write(self.folder / "cells" / f"{name}.safetensors", embeddings)
        atomic_write(self.folder / "cells" / f"{name}.parquet", table)
        self._next_part += 1
        self._held += len(results)

    def add_reading(self, reading: Reading) -> None:
        """Stores what was read from one input picture.

        Raises:
            StoreError: if it cannot be written.
        """
        table, labels, tensors = reading_to_bytes(reading)
        atomic_write(self.folder / "inputs" / f"{reading.id}.safetensors", tensors)
        atomic_write(self.folder / "inputs" / f"{reading.id}.labels.parquet", labels)
        atomic_write(self.folder / "inputs" / f"{reading.id}.parquet", table)

    def finish(self, **facts: Any) -> None:
        """Marks the run as complete and adds facts to its manifest (seconds taken, say), once.

        How many cells it holds is one of them: a run that decodes a choice has fewer than were planned.
        """
        if not self._manifest.get("complete"):
            self._manifest.update(complete=True, decoded=self._held, **facts)
            _write_manifest(self.folder, self._manifest)


@contextmanager
def open_run(folder: Path, identity: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> Generator[RunWriter]:
    """Opens a directory for a run, new or begun before, and locks it while it is open.

    Args:
        folder: where to write.
        identity: models, options and inputs; a run begun before goes on only if they are the same.
        facts: what else the manifest should hold.

    Raises:
        UsageError: if the folder holds another run, or other files.
        StoreError: if it cannot be written, or another process is writing to it.
    """
    mark = fingerprint(identity)
    manifest = {"format": FORMAT, "fingerprint": mark, "complete": False, **(facts or {}), **identity}
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(folder)  # before the lock, which would be one more file in a folder of somebody else's
        lock = (folder / ".lock").open("a")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(f"another process is writing to {folder}; wait for it, or give another --out.") from None
        before = _read_manifest(folder)
        _refuse_foreign(folder)
        if before is not None and before.get("fingerprint") != mark:
            changed = [key for key in identity if before.get(key) != json.loads(json.dumps(identity[key]))]
            raise UsageError(
                f"{folder} holds a run with another {' and '.join(changed) or 'layout'}; "
                "give another --out, or remove that folder."
            )
        if before is None:
            _write_manifest(folder, manifest)
            atomic_write(folder / "README.md", _DATASET_CARD)
        _sweep_up(folder)
        finished, read = finished_keys(folder), frozenset(reading_files(folder))
        # A run that goes on keeps what its manifest says of how it began.
        yield RunWriter(folder, before or manifest, finished, read, resumed=before is not None)


def _sweep_up(folder: Path) -> None:
    """Removes what a killed process had not finished writing; the lock says that no other one is writing."""
    with storing(folder):
        for path in (
            found for inside in (folder, folder / "inputs", folder / "cells") for found in inside.glob(".*.*")
        ):
            path.unlink(missing_ok=True)


def _refuse_foreign(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    # A process may have died while it wrote the very first file.
    others = {name for name in names - {".lock"} if not name.startswith(".manifest.json.")}
    if others and "manifest.json" not in names:
        raise UsageError(f"{folder} holds files that are no run of steerlens; give another --out.")


def load_run(folder: str | Path) -> Atlas:
    """The atlas that a run directory holds, finished or not; pictures and readings are read when they are asked for.

    Raises:
        UsageError: if the folder holds no run.
        StoreError: if the run cannot be read.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    try:
        plan = plan_from_json(manifest["plan"])
        readings = stored_readings(folder, dict.fromkeys(cell.picture for cell in plan.cells))
        results = stored_results(folder, plan.cells)
        manifest["complete"] = is_complete(manifest, len(results))
        return Atlas(
            encoder=_encoder_spec(manifest["encoder"]),
            decoder=_decoder_spec(manifest["decoder"]),
            plan=plan,
            readings=readings,
            results=results,
            manifest=manifest,
        )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise StoreError(f"the run in {folder} cannot be read: {error}.") from error


def is_complete(manifest: Mapping[str, Any], held: int) -> bool:
    """Whether a run is complete that holds so many cells; a part may have been removed since its manifest said so."""
    return bool(manifest.get("complete")) and held == manifest.get("decoded", len(manifest["plan"]["cells"]))


def spec_to_json(spec: EncoderSpec | DecoderSpec) -> dict[str, Any]:
    """A spec as JSON values, as the manifest holds it."""
    return json.loads(json.dumps(asdict(spec)))


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """A plan as JSON values, as the manifest holds it."""
    return {
        "strength": str(plan.strength),
        "seeds": list(plan.seeds),
        "n_layers": plan.n_layers,
        "cells": [cell.key for cell in plan.cells],
    }


def plan_from_json(values: Mapping[str, Any]) -> Plan:
    """The plan that `plan_to_json` wrote."""
    cells: list[Cell] = []
    for key in values["cells"]:
        picture, lens, site, strength, seed, draw = key.split("|")
        parsed = Strength.parse(strength) if strength else None
        cells.append(Cell(picture, lens, Site.parse(site), parsed, int(seed), int(draw)))
    return Plan(tuple(cells), Strength.parse(values["strength"]), tuple(values["seeds"]), values["n_layers"])


def _encoder_spec(values: Mapping[str, Any]) -> EncoderSpec:
    tokens = values["readout_tokens"]
    tuples: dict[str, Any] = {
        "image_size": tuple(values["image_size"]),
        "patch_grid": tuple(values["patch_grid"]),
        "readout_tokens": None if tokens is None else tuple(tokens),
    }
    return EncoderSpec(**{**values, **tuples})


def _decoder_spec(values: Mapping[str, Any]) -> DecoderSpec:
    defaults: dict[str, Any] = dict(values["defaults"])
    defaults["size"] = tuple(defaults["size"])
    defaults["guidance_interval"] = tuple(defaults.get("guidance_interval", (0.0, 1.0)))
    tokens = values.get("tokens")
    source = None if tokens is None else TokenSource(**tokens)
    fields: dict[str, Any] = {**values, "defaults": DecodeOptions(**defaults), "tokens": source}
    return DecoderSpec(**fields)


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    atomic_write(folder / "manifest.json", (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run.

    Raises:
        UsageError: if the folder holds no run.
        StoreError: if it cannot be read, or another version of steerlens wrote it.
    """
    manifest = _read_manifest(folder)
    if manifest is None:
        raise UsageError(f"{folder} holds no run of steerlens: there is no manifest.json in it.")
    if manifest.get("format") != FORMAT:
        raise StoreError(f"{folder} was written by another version of steerlens (format {manifest.get('format')}).")
    return manifest


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / "manifest.json"
    try:
        return json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}.") from error


def _part_number(path: Path) -> int:
    return int(path.stem.removeprefix("part-"))
