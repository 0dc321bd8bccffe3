"""Runs shown, merged and exported; and read by the libraries that people use for tables."""

import csv
import gc
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from steerlens.atlas.atlas import Atlas
from steerlens.atlas.plan import Cell
from steerlens.atlas.results import CellResult
from steerlens.errors import StoreError, UsageError
from steerlens.images import Picture
from steerlens.loading import Pair, load
from steerlens.progress import Progress, run_to_end
from steerlens.runs.export import export_parquet, export_pictures
from steerlens.runs.merge import Merged, merge_runs
from steerlens.runs.reader import beside, finished_keys
from steerlens.runs.store import load_run, open_run
from steerlens.runs.summary import run_summary
from steerlens.runs.tables import cells_to_bytes
from steerlens.sites import Site
from steerlens.sweep.look import look, look_in
from steerlens.sweep.options import LookOptions
from steerlens.sweep.prepare import make_job
from steerlens.testing.tiny import save_tiny_pair


def picture(seed: int = 0, name: str = "") -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    return Picture.from_image(Image.fromarray(pixels), name or f"noise-{seed}")


def run(pair: Pair, folder: Path, **changes: Any) -> Atlas:
    return look(pair, **{"pictures": picture(), "steps": 1, "sites": "head.0.*", "folder": folder, **changes})


def merged(*folders: Path, out: Path) -> Merged:
    def check(event: Progress) -> None:
        assert 0 <= event.done <= event.total

    return run_to_end(merge_runs(folders, out), check)


def begun(pair: Pair, folder: Path) -> None:
    """A run that was stopped after its first part."""
    running = look_in(pair, make_job(pair, [picture()], LookOptions(steps=1, sites="heads", batch_size=2)), folder)
    while not list(folder.glob("cells/part-*.parquet")):
        next(running)
    running.close()


def stored_keys(folder: Path) -> Counter[str]:
    from steerlens.runs.reader import part_files, part_keys

    return Counter(key for path in part_files(folder) for key in part_keys(path))


# ---- summary


def test_a_summary_counts_what_is_there_and_what_is_missing(pair: Pair, tmp_path: Path) -> None:
    begun(pair, tmp_path / "run")
    found = run_summary(tmp_path / "run")
    assert not found.complete and found.seconds is None and not found.being_written
    assert sum(found.decoded.values()) == 2 < sum(found.planned.values())
    assert found.planned.keys() == found.decoded.keys()
    run(pair, tmp_path / "run", sites="heads", batch_size=2)
    assert run_summary(tmp_path / "run").complete


def test_a_run_that_is_being_written_says_so(tmp_path: Path, pair: Pair) -> None:
    run(pair, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    beside = ("format", "fingerprint", "complete", "decoded", "provenance", "geometry", "seconds")
    identity = {key: value for key, value in manifest.items() if key not in beside}
    with open_run(tmp_path / "run", identity):
        assert run_summary(tmp_path / "run").being_written
    assert not run_summary(tmp_path / "run").being_written


def test_a_summary_does_not_mind_files_that_are_renamed_under_it(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(pair, tmp_path / "run")
    real = Path.stat

    def gone(self: Path, **options: Any) -> Any:
        if self.name.startswith("part-"):
            raise FileNotFoundError(self)
        return real(self, **options)

    whole = run_summary(tmp_path / "run").size
    # As `Path.is_file` sees it, it was there the moment before.
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    monkeypatch.setattr(Path, "stat", gone)
    assert 0 < run_summary(tmp_path / "run").size < whole


@pytest.mark.parametrize("missing", ["plan", "encoder", "decoder", "inputs", "directions"])
def test_a_manifest_that_lacks_something_is_told_as_that(missing: str, pair: Pair, tmp_path: Path) -> None:
    run(pair, tmp_path / "run")
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest[missing]
    path.write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match=f"cannot be read: its manifest has no '{missing}'"):
        merged(tmp_path / "run", out=tmp_path / "all")
    if missing != "directions":
        with pytest.raises(StoreError, match=f"cannot be read: its manifest has no '{missing}'"):
            run_summary(tmp_path / "run")
    path.write_text("[]")
    with pytest.raises(StoreError, match="no manifest"):
        run_summary(tmp_path / "run")


# ---- what a run is known by


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ({"decode": "top:1"}, {"decode": "all"}, r"another decode: top:1, while this command has all"),
        ({"decode": "all"}, {"decode": "top:1"}, r"another decode: all, while this command has top:1"),
        ({"steps": 1}, {"steps": 2}, r"another options\.steps: 1, while this command has 2"),
        ({}, {"pictures": picture(1)}, r"another inputs\.\w+: \{\"name\": \"noise-0\""),
        ({}, {"controls": 0}, r"another plan\.cells"),
        (
            {"controls": 0},
            {"n_seeds": 2, "controls": 0},
            r"another plan\.seeds\[1\]: not set, while this command has 1",
        ),
    ],
)
def test_another_run_is_refused_by_the_name_of_what_differs(
    first: dict[str, Any], second: dict[str, Any], said: str, pair: Pair, tmp_path: Path
) -> None:
    run(pair, tmp_path / "run", **first)
    with pytest.raises(UsageError, match=said):
        run(pair, tmp_path / "run", **second)
    run(pair, tmp_path / "run", **first)


# ---- merge


def test_merged_seeds_pictures_and_sites_equal_one_run_of_all(pair: Pair, tmp_path: Path) -> None:
    both = [picture(0), picture(1)]
    run(pair, tmp_path / "a", pictures=both, seed=0)
    run(pair, tmp_path / "b", pictures=both, seed=1)
    run(pair, tmp_path / "c", pictures=both, seed=0, sites="head.1.*")
    run(pair, tmp_path / "d", pictures=both, seed=1, sites="head.1.*")
    found = merged(*(tmp_path / name for name in "abcd"), out=tmp_path / "all")
    whole = run(pair, tmp_path / "whole", pictures=both, sites="head.0.*,head.1.*", n_seeds=2)
    assert found.cells == found.planned == len(whole.plan)
    assert found.duplicates == 4  # the clean reconstruction of two pictures and two seeds is in every run
    atlas = load_run(tmp_path / "all")
    assert atlas.manifest["complete"] is True
    assert atlas.plan == whole.plan
    assert stored_keys(tmp_path / "all") == Counter(cell.key for cell in whole.plan.cells)
    for one, other in zip(atlas.results, whole.results, strict=True):
        assert one.cell == other.cell
        assert np.abs(one.picture.astype(int) - other.picture.astype(int)).mean() < 1  # of batches of other sizes
        assert torch.allclose(one.conditioning, other.conditioning, atol=1e-5)
    for one, other in zip(atlas.readings, whole.readings, strict=True):
        assert one.id == other.id
        assert set(one.labels) == set(other.labels)
    assert str(tmp_path) not in (tmp_path / "all" / "manifest.json").read_text()
    # It is the run that one command for all of it would have written, so that command finds it done.
    again = run(pair, tmp_path / "all", pictures=both, sites="head.0.*,head.1.*", n_seeds=2)
    assert len(again.results) == len(whole.plan)


def test_a_merge_that_was_interrupted_goes_on(pair: Pair, tmp_path: Path) -> None:
    run(pair, tmp_path / "a", batch_size=2)
    run(pair, tmp_path / "b", pictures=picture(1), batch_size=2)
    events = merge_runs([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    for _ in range(4):
        next(events)
    events.close()
    assert not run_summary(tmp_path / "all").complete
    found = merged(tmp_path / "a", tmp_path / "b", out=tmp_path / "all")
    assert set(stored_keys(tmp_path / "all").values()) == {1}
    assert len(finished_keys(tmp_path / "all")) == found.cells == found.planned
    assert run_summary(tmp_path / "all").complete


def test_runs_that_are_not_complete_merge_into_one_that_is_not(pair: Pair, tmp_path: Path) -> None:
    begun(pair, tmp_path / "a")
    run(pair, tmp_path / "b", pictures=picture(1), sites="heads")
    found = merged(tmp_path / "a", tmp_path / "b", out=tmp_path / "all")
    assert 0 < found.cells < found.planned
    assert not run_summary(tmp_path / "all").complete


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 2}, r"options\.steps is 2, not 1"),
        ({"strength": "rho=3"}, r"strength is rho=3"),
        ({"target": picture(7)}, r"target\."),
        ({"n_labels": 2}, r"labels\.kept is 2"),
    ],
)
def test_other_options_are_refused_by_name(changes: dict[str, Any], said: str, pair: Pair, tmp_path: Path) -> None:
    run(pair, tmp_path / "a")
    run(pair, tmp_path / "b", **changes)
    with pytest.raises(UsageError, match=said):
        merged(tmp_path / "a", tmp_path / "b", out=tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_other_weights_are_refused_by_the_name_of_their_file(pair: Pair, tmp_path: Path) -> None:
    run(pair, tmp_path / "a")
    other = load(save_tiny_pair(tmp_path / "other", seed=1), dtype="float32", device="cpu")
    run(other, tmp_path / "b", pictures=picture(1))
    with pytest.raises(UsageError, match=r"models\.sha256\.\w+/model\.safetensors"):
        merged(tmp_path / "a", tmp_path / "b", out=tmp_path / "all")


def test_the_same_weights_in_another_place_are_the_same_model(pair: Pair, tmp_path: Path) -> None:
    run(pair, tmp_path / "a")
    moved = load(save_tiny_pair(tmp_path / "moved"), dtype="float32", device="cpu")
    run(moved, tmp_path / "b", pictures=picture(1))
    assert merged(tmp_path / "a", tmp_path / "b", out=tmp_path / "all").duplicates == 0


@pytest.mark.parametrize("what", ["picture", "similarity"])
def test_different_results_of_one_cell_are_refused_by_its_name(what: str, pair: Pair, tmp_path: Path) -> None:
    run(pair, tmp_path / "a")
    atlas = run(pair, tmp_path / "b")
    results = list(atlas.results)
    wrong = {"file": results[1].png} if what == "picture" else {"similarity": results[0].similarity - 0.3}
    results[0] = replace(results[0], **wrong)
    table, embeddings = cells_to_bytes(results)
    (part,) = (tmp_path / "b" / "cells").glob("*.parquet")
    part.write_bytes(table)
    beside(part)[-1].write_bytes(embeddings)
    (tmp_path / "b" / "SHA256SUMS").unlink()
    with pytest.raises(UsageError, match="different results") as refused:
        merged(tmp_path / "a", tmp_path / "b", out=tmp_path / "all")
    assert results[0].cell.key in str(refused.value)
    assert not (tmp_path / "all").exists()


# ---- export


def exported(events: Any) -> int:
    return sum(1 for _ in events)


def test_one_parquet_file_holds_pictures_inputs_and_numbers(pair: Pair, tmp_path: Path) -> None:
    atlas = run(pair, tmp_path / "run", pictures=[picture(0), picture(1)])
    assert exported(export_parquet(atlas, tmp_path / "all.parquet")) >= 1
    table = pq.read_table(tmp_path / "all.parquet")
    assert table.num_rows == len(atlas.results)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert {name for name, kind in features.items() if kind == {"_type": "Image"}} == {"image", "input_image"}
    for row, result in zip(table.to_pylist(), atlas.results, strict=True):
        assert (row["picture"], row["site"], row["seed"]) == (
            result.cell.picture,
            str(result.cell.site),
            result.cell.seed,
        )
        assert row["image"]["bytes"] == result.png
        assert row["similarity"] == result.similarity
        reading = atlas.reading(result.cell.picture)
        assert row["input"] == reading.picture.name
        assert row["label"] == reading.top_labels(result.cell.site)[0].name
        with Image.open(io.BytesIO(row["input_image"]["bytes"])) as image:
            assert np.array_equal(np.array(image), np.array(reading.picture.image))


def test_a_full_disk_leaves_no_half_of_a_parquet_file(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas = run(pair, tmp_path / "run")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("steerlens.storage.files.os.fsync", full)
        with pytest.raises(StoreError, match=r"Nothing of it is kept; .* run the same command again\."):
            exported(export_parquet(atlas, tmp_path / "out" / "all.parquet"))
        assert not list((tmp_path / "out").iterdir())
    exported(export_parquet(atlas, tmp_path / "out" / "all.parquet"))  # the same again, as it was told


@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_leaves_no_half_of_a_folder_of_pictures(
    there: bool, pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas, out, real, written = run(pair, tmp_path / "run"), tmp_path / "out", Path.open, list[Path]()
    if there:
        out.mkdir()

    def full(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if mode == "xb":
            written.append(self)
        if len(written) > 3:
            raise OSError(28, "No space left on device")
        return real(self, mode, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(StoreError, match=r"Nothing of it is kept; .* run the same command again\."):
            exported(export_pictures(atlas, out))
    assert out.exists() == there and not list(out.glob("*"))
    exported(export_pictures(atlas, out))  # the same again, as it was told
    assert len(list(out.rglob("*.png"))) == len(atlas.results) + 1


def test_an_export_that_was_stopped_leaves_nothing_behind(pair: Pair, tmp_path: Path) -> None:
    events = export_pictures(run(pair, tmp_path / "run"), tmp_path / "out")
    assert next(event for event in events if event.done)
    assert list((tmp_path / "out").iterdir())
    events.close()
    assert not (tmp_path / "out").exists()


def test_names_that_meet_on_the_disk_are_told_apart(pair: Pair, tmp_path: Path) -> None:
    width = pair.encoder.spec.width
    names = ("a" * 90 + "-one", "a" * 90 + "-two", "Late", "late")
    directions = {name: torch.randn(width, generator=torch.Generator().manual_seed(n)) for n, name in enumerate(names)}
    given = [picture(0, "Cat"), picture(1, "cat")]
    atlas = run(pair, tmp_path / "run", pictures=given, sites="", directions=directions, controls=0)
    exported(export_pictures(atlas, tmp_path / "out"))
    files = [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")]
    assert len({name.casefold() for name in files}) == len(files) == len(atlas.results) + 2
    assert "Cat/steering/vector.Late-seed0.png" in files


def test_a_folder_of_pictures_has_readable_names_and_an_index(pair: Pair, tmp_path: Path) -> None:
    atlas = run(pair, tmp_path / "run", pictures=[picture(0, "tea / cup"), picture(1, "tea \\ cup")], n_seeds=2)
    exported(export_pictures(atlas, tmp_path / "out"))
    with (tmp_path / "out" / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    listed = json.loads((tmp_path / "out" / "index.json").read_text())
    assert len(rows) == len(listed) == len(atlas.results)
    assert rows[0]["file"].startswith("tea-cup/diffusion/")
    for row, entry, result in zip(rows, listed, atlas.results, strict=True):
        assert row["file"] == entry["file"]
        assert (tmp_path / "out" / row["file"]).read_bytes() == result.png
        assert float(row["similarity"]) == entry["similarity"] == result.similarity
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert len(files) == len(atlas.results) + 2  # the inputs
    assert sum(name.endswith("/input.png") for name in files) == 2


def test_nothing_is_exported_of_a_run_without_pictures_or_over_other_files(pair: Pair, tmp_path: Path) -> None:
    atlas = run(pair, tmp_path / "run")
    with pytest.raises(UsageError, match="nothing to export"):
        exported(export_parquet(replace(atlas, results=()), tmp_path / "none.parquet"))
    with pytest.raises(UsageError, match="is not empty"):
        exported(export_pictures(atlas, tmp_path))
    (tmp_path / "there.parquet").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        exported(export_parquet(atlas, tmp_path / "there.parquet"))
    assert (tmp_path / "there.parquet").read_text() == "mine"


# ---- parts of an atlas, and atlases that are read piece by piece


def test_some_inputs_of_a_run_are_a_run_of_their_own(pair: Pair, tmp_path: Path) -> None:
    pictures = [picture(0), picture(1), picture(2)]
    whole = run(pair, tmp_path / "run", pictures=pictures)
    some = whole.only(["noise-2", "noise-0"])
    assert [reading.picture.name for reading in some.readings] == ["noise-0", "noise-2"]
    assert [result.cell for result in some.results] == list(some.plan.cells)
    site = Site("head", 0, 1)
    assert some.score("steering", site, "noise-2") == whole.score("steering", site, "noise-2")
    assert len(some.results_of("noise-2")) == len(whole.results) // 3
    with pytest.raises(UsageError, match="noise-1"):
        some.reading("noise-1")


def test_what_is_stored_equals_what_was_in_memory(pair: Pair, tmp_path: Path) -> None:
    pictures = [picture(0), picture(1)]
    memory = look(pair, pictures, steps=1, sites="heads", n_seeds=2, batch_size=5)
    stored = run(pair, tmp_path / "run", pictures=pictures, sites="heads", n_seeds=2, batch_size=5)
    assert list(stored.finished) == list(memory.finished)
    for one, other in zip(stored.results, memory.results, strict=True):
        assert one.cell == other.cell and one.png == other.png
        assert torch.equal(one.reencoded, other.reencoded) and one.similarity == other.similarity
    for reading in memory.readings:
        assert stored.ranked("steering", reading.id) == memory.ranked("steering", reading.id)
        assert np.array_equal(np.array(stored.reading(reading.id).picture.image), np.array(reading.picture.image))
    assert stored.results[-1].cell == memory.results[-1].cell
    assert [result.cell for result in stored.results[1:6:2]] == [result.cell for result in memory.results[1:6:2]]
    with pytest.raises(IndexError):
        stored.results[len(memory.results)]


def test_a_run_that_is_read_holds_neither_its_cells_nor_its_pictures(pair: Pair, tmp_path: Path) -> None:
    given = [picture(seed) for seed in range(8)]
    run(pair, tmp_path / "run", pictures=given)

    def held() -> int:
        gc.collect()
        return sum(type(one) in (Cell, CellResult) for one in gc.get_objects())

    before = held()
    atlas = load_run(tmp_path / "run")
    of_each = len(atlas.plan) // len(given)
    assert len(atlas.results) == len(atlas.finished) == len(given) * of_each
    assert atlas.reading("noise-7").picture.name == "noise-7" and len(atlas.results_of("noise-7")) == of_each
    assert held() - before <= of_each  # what every picture has, once
    assert list(atlas.finished) == list(atlas.plan.cells)
    assert atlas.results[-1].cell == atlas.plan.cells[-1]


def test_scores_of_a_stored_run_are_told_without_reading_a_picture(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(pair, tmp_path / "run")
    monkeypatch.setattr("steerlens.runs.reader.read_png", lambda *_: pytest.fail("a picture was read"))
    atlas = load_run(tmp_path / "run")
    assert atlas.ranked("steering") and atlas.reading().labels and atlas.clean()
    assert run_summary(tmp_path / "run").complete
    with pytest.raises(pytest.fail.Exception, match="a picture was read"):
        _ = atlas.clean()[0].png
