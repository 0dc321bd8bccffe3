"""A process that dies at any step of writing a run leaves a run that can be resumed."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from steerlens.atlas.atlas import Atlas
from steerlens.atlas.plan import Cell
from steerlens.errors import UsageError
from steerlens.runs.manifest import plan_to_json, spec_to_json
from steerlens.runs.reader import part_files, part_keys
from steerlens.runs.store import RunWriter, load_run, open_run
from steerlens.storage import files
from steerlens.testing.atlases import fake_atlas

_DIED = 9


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return fake_atlas(sites="head.0.*", controls=0)  # few cells: every file is flushed to the disk, twice


def identity(atlas: Atlas) -> dict[str, Any]:
    specs = {"encoder": spec_to_json(atlas.encoder), "decoder": spec_to_json(atlas.decoder)}
    return {**specs, "plan": plan_to_json(atlas.plan)}


def write(folder: Path, atlas: Atlas) -> None:
    """Stores what is missing, three cells at a time."""
    with open_run(folder, identity(atlas)) as writer:
        for reading in atlas.readings:
            if reading.id not in writer.read:
                writer.add_reading(reading)
        add_missing(writer, atlas)
        writer.finish()


def add_missing(writer: RunWriter, atlas: Atlas) -> None:
    left = [result for result in atlas.results if result.cell.key not in writer.finished]
    for start in range(0, len(left), 3):
        writer.add_cells(left[start : start + 3])


def dying(step: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Wraps functions so that the process dies instead of one of their calls, counted together."""
    calls = iter(range(step))

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(calls, None) is None:
                os._exit(_DIED)
            return real(*args, **kwargs)

        return call

    return wrap


def die_at(step: int, folder: Path, atlas: Atlas) -> bool:
    """Writes in a process that dies at this step of writing; whether it did, since there may be fewer steps."""
    child = os.fork()
    if child == 0:  # whatever happens, this process must not go on with the tests
        try:
            wrap = dying(step)
            os.fsync = wrap(os.fsync)
            Path.replace = wrap(Path.replace)  # type: ignore[method-assign]
            Path.mkdir = wrap(Path.mkdir)  # type: ignore[method-assign]
            write(folder, atlas)
            os._exit(0)
        except BaseException:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, _DIED)
    return code == _DIED


def steps(folder: Path, atlas: Atlas) -> Iterator[Path]:
    """A folder for every step of writing a run, in which a process died at that step."""
    for step in range(1000):
        place = folder / str(step)
        if not die_at(step, place, atlas):
            return
        yield place


def test_a_run_is_gone_on_with_from_every_step_of_writing(atlas: Atlas, tmp_path: Path) -> None:
    count, undisturbed = 0, tmp_path / "undisturbed"
    write(undisturbed, atlas)
    for folder in steps(tmp_path, atlas):
        count += 1
        if (folder / "manifest.json").exists():
            begun = load_run(folder)  # what is there can be looked at
            assert len(begun.finished) <= len(atlas.plan)
        write(folder, atlas)
        stored = load_run(folder)
        assert stored.manifest["complete"] is True
        held = Counter(key for path in part_files(folder) for key in part_keys(path))
        assert held == Counter(cell.key for cell in atlas.plan.cells)
        assert [reading.id for reading in stored.readings] == [reading.id for reading in atlas.readings]
        assert not [path for path in folder.rglob(".*") if path.name != ".lock"]
        # Without it the datasets library refuses the folder, whatever the parts hold.
        assert (folder / "README.md").read_bytes() == (undisturbed / "README.md").read_bytes()
    held = len([path for path in undisturbed.rglob("*") if path.is_file() and path.name != ".lock"])
    assert count >= 3 * held  # a flush, a rename and a flush of the folder for every file


def test_a_power_cut_cannot_take_the_folders_of_a_run_that_its_manifest_speaks_of(
    atlas: Atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk, real, flush, place = set[Path](), Path.replace, files.flush_names, tmp_path / "runs" / "new" / "run"

    def flushed(folder: Path) -> None:
        flush(folder)
        on_disk.update(folder.iterdir())

    def renamed(self: Path, target: Path) -> Path:
        wanted = {target.parent, *target.parent.parents, place / "cells", place / "inputs"}
        lost = {folder for folder in wanted if folder.is_relative_to(tmp_path / "runs")} - on_disk
        assert not lost, f"{target} is there and {lost} may not be after a power cut"
        return real(self, target)

    monkeypatch.setattr(files, "flush_names", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    write(place, atlas)
    assert load_run(place).manifest["complete"] is True


def test_a_folder_of_somebody_else_is_not_taken_for_the_beginning_of_a_run(atlas: Atlas, tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="not a run"), open_run(tmp_path, identity(atlas)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["cells"]


def test_a_later_part_counts_once_even_if_cells_are_stored_again(atlas: Atlas, tmp_path: Path) -> None:
    write(tmp_path, atlas)
    with open_run(tmp_path, identity(atlas)) as writer:
        writer.add_cells(atlas.results[:2])
    cells: list[Cell] = [result.cell for result in load_run(tmp_path).results]
    assert cells == list(atlas.plan.cells)
