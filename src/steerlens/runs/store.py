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

import hashlib
import json
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from steerlens.atlas.atlas import Atlas, CellResult, Reading
from steerlens.atlas.plan import Cell, Plan, RepeatedCells, compact
from steerlens.decoders.base import DecodeOptions, DecoderSpec, TokenSource
from steerlens.encoders.base import EncoderSpec
from steerlens.encoders.geometry import geometry_from_json
from steerlens.errors import StoreError, UsageError
from steerlens.lenses.strength import Strength
from steerlens.report.notebook import NotebookAtlas
from steerlens.runs.difference import first_difference
from steerlens.runs.reader import finished_keys, part_files, reading_files, stored_readings, stored_results
from steerlens.runs.tables import cells_to_bytes, reading_to_bytes
from steerlens.sites import Site
from steerlens.storage.files import atomic_write, make_folder, storing
from steerlens.storage.folder import OwnedFolder
from steerlens.storage.lock import LOCK_FILE, only_writer

_INSIDE = ("inputs", "cells")
"""The folders of a run directory."""

_OWN = re.compile(
    r"manifest\.json|README\.md|report\.html|part-\d+\.(parquet|safetensors)|[^.]+(\.labels)?\.parquet|[^.]+\.safetensors"
)
"""Names of the files of a run."""

FORMAT = 1
"""Version of the layout of a run directory."""

BESIDE_IDENTITY = (
    "format",
    "fingerprint",
    "complete",
    "decoded",
    "provenance",
    "geometry",
    "seconds",
    "resumed",
    "merged",
)
"""What a manifest holds besides what a run is known by."""

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
        self._own = OwnedFolder(folder)
        self._manifest = dict(manifest)
        self._held = len(finished)
        self._next_part = 1 + max((_part_number(path) for path in part_files(folder)), default=-1)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to decode: the run was finished, and no part of it has been removed since."""
        return is_complete(self._manifest, self._held)

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
        self._held += len(results)

    def add_reading(self, reading: Reading) -> None:
        """Stores what was read from one input picture.

        Raises:
            StoreError: if it cannot be written.
        """
        table, labels, tensors = reading_to_bytes(reading)
        self._own.write(tensors, "inputs", f"{reading.id}.safetensors")
        self._own.write(labels, "inputs", f"{reading.id}.labels.parquet")
        self._own.write(table, "inputs", f"{reading.id}.parquet")

    def finish(self, **facts: Any) -> None:
        """Marks the run as complete and adds facts to its manifest (seconds taken, say), once.

        How many cells it holds is one of them: a run that decodes a choice has fewer than were planned.

        Raises:
            StoreError: if the manifest cannot be written; the one before stays.
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
    asked: dict[str, Any] = json.loads(json.dumps(identity))
    manifest = {"format": FORMAT, "fingerprint": fingerprint(asked), "complete": False, **(facts or {}), **asked}
    with storing(folder):
        make_folder(folder)
        _refuse_foreign(folder)  # before the lock, which would be one more file in a folder of somebody else's
    with only_writer(folder):
        before = _read_manifest(folder)
        _refuse_foreign(folder)
        if before is not None and before.get("fingerprint") != manifest["fingerprint"]:
            there = _as_now(folder, known_by(before))
            if there != asked:
                _refuse_other(folder, there, asked)
        with storing(folder):
            for inside in _INSIDE:  # before there is a manifest to say that this is a run, which must not lose them
                OwnedFolder(folder).make(inside)
        if before is None:
            _write_manifest(folder, manifest)
        if not (folder / "README.md").exists():  # a process may have died before it wrote it
            atomic_write(folder / "README.md", _DATASET_CARD)
        _sweep_up(folder)
        finished, read = finished_keys(folder), frozenset(reading_files(folder))
        # A run that goes on keeps what its manifest says of how it began.
        yield RunWriter(folder, before or manifest, finished, read, resumed=before is not None)


def known_by(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is known by: the part of its manifest that two calls must share to add to one run."""
    return {key: value for key, value in manifest.items() if key not in BESIDE_IDENTITY}


def _as_now(folder: Path, held: dict[str, Any]) -> dict[str, Any]:
    """What a run is known by, its plan named as it is today: earlier versions named every cell of every picture."""
    with readable_run(folder):
        return {**held, "plan": plan_to_json(plan_from_json(held["plan"]))} if "plan" in held else held


def identity_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """The first thing in which two runs differ by what they are known by, and what each of them says.

    The plan comes last: most other differences make another plan too.
    """
    # A run that decodes everything does not say so.
    first, second = ({"decode": "all", **held} for held in (one, other))
    plans = first.pop("plan", None), second.pop("plan", None)
    return first_difference(first, second) or first_difference(*plans, "plan")


def _refuse_other(folder: Path, there: Mapping[str, Any], asked: Mapping[str, Any]) -> NoReturn:
    name, held, wanted = identity_difference(there, asked) or ("layout", "that of another version", "this one's")
    raise UsageError(
        f"{folder} holds a run with another {name}: {held} there, and {wanted} was asked for; give another --out, or "
        "remove that folder."
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
    """The atlas that a run directory holds, finished or not; pictures and readings are read when they are asked for.

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
            encoder=_encoder_spec(manifest["encoder"], manifest.get("geometry")),
            decoder=_decoder_spec(manifest["decoder"]),
            plan=plan,
            readings=readings,
            results=results,
            manifest=manifest,
        )


@contextmanager
def readable_run(folder: Path) -> Generator[None]:
    """Turns what is missing from a run, or broken, into one clear message.

    Raises:
        StoreError: if anything is.
    """
    try:
        yield
    except KeyError as error:
        raise StoreError(f"the run in {folder} cannot be read: its manifest has no {error}.") from error
    except (AttributeError, TypeError, ValueError, OSError) as error:
        raise StoreError(f"the run in {folder} cannot be read: {error}.") from error


def is_complete(manifest: Mapping[str, Any], held: int) -> bool:
    """Whether a run is complete that holds so many cells; a part may have been removed since its manifest said so."""
    if not manifest.get("complete"):
        return False
    decoded = manifest.get("decoded")
    return held == (len(plan_from_json(manifest["plan"])) if decoded is None else decoded)


def spec_to_json(spec: EncoderSpec | DecoderSpec) -> dict[str, Any]:
    """A spec as JSON values, as the manifest holds it; the geometry of pictures, which is no size, is kept apart."""
    values = json.loads(json.dumps(asdict(spec)))
    return {name: value for name, value in values.items() if name != "geometry"}


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """A plan as JSON values, as the manifest holds it: cells that every picture has are named once."""
    same = plan.cells if isinstance(plan.cells, RepeatedCells) else None
    return {
        "strength": str(plan.strength),
        "seeds": list(plan.seeds),
        "n_layers": plan.n_layers,
        **({} if same is None else {"pictures": list(same.pictures)}),
        "cells": [cell.key for cell in (plan.cells if same is None else same.each)],
    }


def plan_from_json(values: Mapping[str, Any]) -> Plan:
    """The plan that `plan_to_json` wrote, or an earlier version, which named every cell of every picture."""
    cells = tuple(_cell_of(key) for key in values["cells"])
    held = RepeatedCells(tuple(values["pictures"]), cells) if "pictures" in values else compact(cells)
    return Plan(held, Strength.parse(values["strength"]), tuple(values["seeds"]), values["n_layers"])


def _cell_of(key: Any) -> Cell:
    picture, lens, site, strength, seed, draw = key.split("|")
    parsed = Strength.parse(strength) if strength else None
    return Cell(picture, lens, Site.parse(site), parsed, int(seed), int(draw))


def _encoder_spec(values: Mapping[str, Any], geometry: Mapping[str, Any] | None = None) -> EncoderSpec:
    tokens = values["readout_tokens"]
    tuples: dict[str, Any] = {
        "image_size": tuple(values["image_size"]),
        "patch_grid": tuple(values["patch_grid"]),
        "readout_tokens": None if tokens is None else tuple(tokens),
        "geometry": None if geometry is None else geometry_from_json(geometry),
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
        held = json.loads(path.read_bytes()) if path.is_file() else None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}.") from error
    if held is not None and not isinstance(held, dict):
        raise StoreError(f"{path} cannot be read: it holds no manifest.")
    return held


def _part_number(path: Path) -> int:
    return int(path.stem.removeprefix("part-"))
