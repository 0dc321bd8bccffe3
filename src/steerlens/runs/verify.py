"""Verification of a run: every file against its hash and by reading it, what would be lost, and how to redo it."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from steerlens import borders
from steerlens.errors import StoreError
from steerlens.images import check_png
from steerlens.runs.cards import CARDS, card_files, read_cards_file
from steerlens.runs.hashes import FOREIGN, all_listed, damage_of, read_hashes, tidy_hashes
from steerlens.runs.manifest import check_fingerprint, plan_from_json, read_manifest, readable_run
from steerlens.runs.reader import (
    LABELS,
    UNITS,
    beside,
    part_cells,
    part_files,
    part_keys,
    reading_files,
    stored_reading,
)
from steerlens.storage import OwnedFolder, only_writer, storing

DAMAGED = "damaged"
"""Folder inside a run that damaged files are moved to."""


@dataclass(frozen=True)
class DamagedFile:
    """A file of a run that cannot be used.

    Attributes:
        file: its name inside the run.
        reason: what is wrong with it.
        moved: where it is now, inside the run; None if it stays.
    """

    file: str
    reason: str
    moved: str | None = None


@dataclass(frozen=True)
class Verification:
    """Result of verifying a run.

    Attributes:
        folder: the run.
        files: number of files checked.
        without_hash: number of these for which the run has no hash (an earlier version wrote them); they were checked
            by reading.
        damaged: what cannot be used.
        intact_pictures: decoded pictures in undamaged parts.
        expected_pictures: how many the run should have: those it had when it was finished, else those planned.
        lost_readings: ids of input pictures whose reading is damaged or missing.
        lost_cards: ids of input pictures whose cards of heads are damaged, or missing though the run wrote them.
        redo: how to redo what is missing; empty if nothing is.
    """

    folder: Path
    files: int
    without_hash: int
    damaged: tuple[DamagedFile, ...]
    intact_pictures: int
    expected_pictures: int
    lost_readings: tuple[str, ...]
    lost_cards: tuple[str, ...]
    redo: str


def verify_run(folder: str | Path, *, remove_damaged: bool = False) -> Verification:
    """Verifies all files of a run: hashes, then content where there is no hash.

    Args:
        folder: the run directory.
        remove_damaged: True to move damaged cards, and parts and readings with a damaged file, to RUN/damaged.

    Raises:
        UsageError: if the folder contains no run.
        StoreError: if the manifest is damaged, or the files cannot be moved.
    """
    folder = Path(folder)
    if remove_damaged:
        read_manifest(folder)  # before a lock is made in a folder that is no run
        with only_writer(folder):
            return _verify(folder, remove_damaged=True)
    return _verify(folder, remove_damaged=False)


def _verify(folder: Path, *, remove_damaged: bool) -> Verification:
    manifest = read_manifest(folder)
    with readable_run(folder):
        plan = plan_from_json(manifest["plan"])
    check_fingerprint(folder, manifest)
    parts, readings = part_files(folder), reading_files(folder)
    hashes = read_hashes(folder)  # after the files: each complete one is listed
    tables = [*parts, *readings.values()]
    cards = card_files(folder)
    names = [name for path in (*tables, *cards.values()) for name in _names(folder, path)]
    planned = {cell.key for cell in plan.cells}
    strict = all_listed(folder)
    damaged, keys, read = list[DamagedFile](), set[str](), set[str]()
    for table in tables:
        reasons = list(_damage(folder, table, hashes, planned))
        if not reasons and strict:
            reasons = [(name, FOREIGN) for name in _names(folder, table) if name not in hashes]
        if not reasons:
            if table in parts:
                keys.update(part_keys(table))
            else:
                read.add(table.stem)
        elif remove_damaged:
            moved = _move_aside(folder, table)
            damaged += [DamagedFile(name, reason, moved[name]) for name, reason in reasons if name in moved]
            damaged += [DamagedFile(name, reason) for name, reason in reasons if name not in moved]
        else:
            damaged += [DamagedFile(name, reason) for name, reason in reasons]
    written = {Path(name).stem for name in hashes if name.startswith(f"{CARDS}/")}
    lost_cards = written - cards.keys()
    for id, path in cards.items():
        if reason := _damage_of_cards(folder, path, hashes, plan.pictures):
            name = _names(folder, path)[0]
            moved = _move_aside(folder, path) if remove_damaged else {}
            damaged.append(DamagedFile(name, reason, moved.get(name)))
            lost_cards.add(id)
    if remove_damaged:
        tidy_hashes(folder)
    expected = manifest.get("decoded") if manifest.get("complete") else None
    expected = len(plan) if expected is None else expected
    lost = tuple(id for id in plan.pictures if id not in read)
    missing = bool(lost) or len(keys) < expected or any(not file.file.startswith(f"{CARDS}/") for file in damaged)
    remove = bool(damaged) and not remove_damaged
    return Verification(
        folder=folder,
        files=len(names),
        without_hash=sum(name not in hashes for name in names),
        damaged=tuple(damaged),
        intact_pictures=len(keys),
        expected_pictures=expected,
        lost_readings=lost,
        lost_cards=tuple(sorted(lost_cards)),
        redo=_redo(folder, manifest.get("merged"), remove, cards_alone=not missing) if missing or lost_cards else "",
    )


def _redo(folder: Path, merged: object, remove: bool, *, cards_alone: bool) -> str:
    first = f"steerlens runs verify {folder} --remove-damaged, then " if remove else ""
    if merged:
        return f"{first}merge the runs again into a new folder, or run a `steerlens lens` command for all of it"
    command = "the command with --bank that made the cards" if cards_alone else "the command that began the run"
    return f"{first}{command}, with --out {folder} --resume"


def _damage(folder: Path, table: Path, hashes: dict[str, str], planned: set[str]) -> Iterator[tuple[str, str]]:
    """Names and reasons of what is wrong with a part or a reading."""
    names, whole = _names(folder, table), True
    for name in names:
        missing = None if (folder / name).is_file() else "it is missing"
        if reason := damage_of(folder, name, hashes) or missing:
            whole = False
            yield name, reason
    if not whole:
        return
    try:
        if table.parent.name == "inputs":
            reading = stored_reading(table)
            if names[0] not in hashes:
                _ = reading.picture.image
        else:
            results = part_cells(table)
            if any(result.cell.key not in planned for result in results):
                yield names[0], "it has pictures that are not planned in this run"
            elif names[0] not in hashes:
                _check_pictures(table)
    except StoreError as error:
        yield names[0], borders.reason(error.__cause__ or error)
    except Exception as error:  # whatever a library says of bytes that are no longer what it wrote
        if isinstance(error, MemoryError) and names[0] in hashes:  # the file is what was written
            raise
        yield names[0], borders.reason(error)


def _damage_of_cards(folder: Path, path: Path, hashes: dict[str, str], ids: Collection[str]) -> str | None:
    """Says what is wrong with a file of cards; None if nothing is."""
    name = _names(folder, path)[0]
    if path.stem not in ids:
        return "it belongs to no input of this run"
    if reason := damage_of(folder, name, hashes):
        return reason
    try:
        _, cards = read_cards_file(path)
        if name not in hashes:
            for end in (end for card in cards.heads for end in (card.gains, card.loses)):
                for picture in (end.decoded, *end.real):
                    check_png(picture.png)
    except Exception as error:  # whatever a library says of bytes that are no longer what it wrote
        if isinstance(error, MemoryError) and name in hashes:  # the file is what was written
            raise
        return borders.reason(error.__cause__ or error)
    return None


def _files(path: Path) -> list[Path]:
    """Files of a part or a reading, the table first; or the file of an input's cards."""
    return [path] if path.parent.name == CARDS else beside(path)


def _names(folder: Path, path: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in _files(path)]


def _check_pictures(table: Path) -> None:
    with pq.ParquetFile(table) as file:
        for batch in file.iter_batches(batch_size=8, columns=["image.bytes"]):
            for image in batch.column("image").to_pylist():
                check_png((image or {}).get("bytes") or b"")


def _move_aside(folder: Path, table: Path) -> dict[str, str]:
    """Moves a part, a reading or cards to `damaged/`, a table first, so that half of it never counts.

    Returns the new names by the former ones.
    """
    aside = OwnedFolder(folder).inside(DAMAGED)
    aside.make()
    moved: dict[str, str] = {}
    for path in _files(table):
        if not path.exists() and not path.is_symlink():
            continue  # a link to nowhere is moved too
        # Labels and units are named like the table of their reading.
        name = path.name if path.parent.name not in (LABELS, UNITS) else f"{path.stem}.{path.parent.name}.parquet"
        place, number = aside.path(name), 1
        while place.exists() or place.is_symlink():
            place, number = aside.path(f"{number}-{name}"), number + 1
        with storing(place):
            path.rename(place)
        moved[path.relative_to(folder).as_posix()] = place.relative_to(folder).as_posix()
    return moved
