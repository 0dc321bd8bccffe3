"""Runs whose files were tampered with: nothing is written outside the output, and nothing foreign is removed."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from steerlens.atlas.atlas import Atlas
from steerlens.errors import StoreError, UsageError
from steerlens.progress import run_to_end
from steerlens.runs.export import export_parquet, export_pictures, export_report
from steerlens.runs.hashes import HASHES
from steerlens.runs.manifest import plan_to_json, spec_to_json
from steerlens.runs.merge import merge_runs
from steerlens.runs.reader import part_files, reading_files
from steerlens.runs.store import load_run, open_run
from steerlens.runs.summary import run_summary
from steerlens.studies.shared.folder import open_study
from steerlens.testing.atlases import fake_atlas


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    return fake_atlas(sites="head.0.*", controls=0)


@pytest.fixture
def run(atlas: Atlas, tmp_path: Path) -> Path:
    return write(tmp_path / "run", atlas)


def identity(atlas: Atlas) -> dict[str, Any]:
    specs = {"encoder": spec_to_json(atlas.encoder), "decoder": spec_to_json(atlas.decoder)}
    inputs = {reading.id: {"name": reading.picture.name} for reading in atlas.readings}
    return {**specs, "plan": plan_to_json(atlas.plan), "inputs": inputs, "directions": {}}


def write(folder: Path, atlas: Atlas) -> Path:
    with open_run(folder, identity(atlas)) as writer:
        for reading in atlas.readings:
            writer.add_reading(reading)
        writer.add_cells(list(atlas.results))
        writer.finish()
    return folder


def change_column(table: Path, column: str, change: Callable[[Any], Any]) -> None:
    """Changes a table as someone would who can remove its hash too."""
    (table.parent.parent / HASHES).unlink(missing_ok=True)
    held = pq.read_table(table)
    index = held.schema.get_field_index(column)
    values = pa.array([change(value) for value in held.column(index).to_pylist()], held.schema.field(index).type)
    pq.write_table(held.set_column(index, held.schema.field(index), values), table)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            ("options", "text"),
            ("options", None),
            ("target", []),
            ("directions", 3),
            ("decode", {}),
            ("seconds", "long"),
        ),
        *(("target", {"description": 3, "source": ""}), ("inputs", {"a": 3})),
        ("inputs", {"a": {"name": float("inf"), "sha256": "b"}}),
    ],
)
def test_a_part_of_the_manifest_of_another_kind_is_told_by_name(run: Path, key: str, value: object) -> None:
    manifest = run / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), key: value}))
    (run / HASHES).unlink()
    with pytest.raises(StoreError, match=rf"its '{key}' is of the wrong kind"):
        load_run(run)


@pytest.mark.parametrize("zeros", [True, False])
def test_a_file_of_tensors_far_too_long_is_told_without_reading_it(
    run: Path, zeros: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = next((run / "tensors").glob("part-*"))
    if zeros:
        part.write_bytes(b"")
    os.truncate(part, 10**11)

    def read(*_: object, **__: object) -> None:
        raise AssertionError("100 GB are read")

    monkeypatch.setattr("steerlens.runs.reader.safe_open", read)
    monkeypatch.setattr("hashlib.file_digest", read)
    with pytest.raises(StoreError, match=r"part-000000\.safetensors cannot be read"):
        run_summary(run)


def change_lens(run: Path, lens: str) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["plan"]["cells"] = [key.replace("|steering|", f"|{lens}|") for key in manifest["plan"]["cells"]]
    (run / "manifest.json").write_text(json.dumps(manifest))
    for part in part_files(run):
        change_column(part, "lens", lambda value: lens if value == "steering" else value)


def outputs(run: Path, out: Path) -> list[Callable[[], Any]]:
    return [
        lambda: list(merge_runs([run], out / "merged")),
        lambda: list(export_pictures(load_run(run), out / "pictures")),
        lambda: list(export_parquet(load_run(run), out / "all.parquet")),
        lambda: export_report(load_run(run), out / "page"),
    ]


@pytest.mark.parametrize("name", ["../../victim/file", "{outside}/file", "..", ".", "a\\b"])
@pytest.mark.parametrize("place", ["id", "lens"])
def test_names_in_a_run_never_lead_out_of_the_folder_that_is_written(
    name: str, place: str, run: Path, tmp_path: Path
) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_text("precious")
    name = name.format(outside=tmp_path / "victim")
    if place == "lens":
        change_lens(run, name)
    else:
        for table in reading_files(run).values():
            change_column(table, "picture", lambda _: name)
    for write_output in outputs(run, tmp_path / "out"):
        with pytest.raises(StoreError, match=r"cannot be read.*(no lens|input)"):
            write_output()
    assert [(path.name, path.read_text()) for path in (tmp_path / "victim").iterdir()] == [("file", "precious")]
    assert {path.name for path in tmp_path.iterdir()} <= {"victim", "run", "out"}


def test_folders_of_a_run_that_are_links_are_not_written_through(atlas: Atlas, run: Path, tmp_path: Path) -> None:
    (run / "cells").rename(tmp_path / "elsewhere")
    (run / "cells").symlink_to(tmp_path / "elsewhere")
    held = sorted((tmp_path / "elsewhere").iterdir())
    with pytest.raises(StoreError, match=r"cells is a link"), open_run(run, identity(atlas)):
        pass
    assert sorted((tmp_path / "elsewhere").iterdir()) == held


def test_a_run_is_tidied_of_its_own_half_written_files_alone(atlas: Atlas, run: Path) -> None:
    theirs = [run / ".env.local", run / "cells" / ".my.backup", run / "cells" / ".part-000000.parquet.original"]
    for path in theirs:
        path.write_text("mine")
    half = run / "cells" / ".part-000001.parquet.a8d_k2x1.steerlens"
    half.write_text("half")
    with open_run(run, identity(atlas)):
        pass
    assert all(path.read_text() == "mine" for path in theirs)
    assert not half.exists()


def test_nothing_is_exported_into_a_run(run: Path, tmp_path: Path) -> None:
    before = sorted(run.rglob("*"))
    for out in (run, run / "export", run / "cells" / "deep"):
        for export in (export_pictures, export_parquet):
            with pytest.raises(UsageError, match="is inside the run"):
                list(export(load_run(run), out, force=True))
        with pytest.raises(UsageError, match="is inside the run"):
            export_report(load_run(run), out, force=True)
    assert sorted(run.rglob("*")) == before


def test_exports_replace_files_only_if_they_are_told_to(run: Path, tmp_path: Path) -> None:
    atlas, out = load_run(run), tmp_path / "out"
    for _ in range(2):
        list(export_pictures(atlas, out, force=True))
        list(export_parquet(atlas, tmp_path / "all.parquet", force=True))
        export_report(atlas, tmp_path / "page", force=True)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="--force"):
        list(export_pictures(atlas, out))
    with pytest.raises(UsageError, match="--force"):
        list(export_parquet(atlas, tmp_path / "all.parquet"))
    with pytest.raises(UsageError, match="--force"):
        export_report(atlas, tmp_path / "page")
    list(export_pictures(atlas, out, force=True))
    assert (out / "notes.txt").read_text() == "mine"


def test_texts_that_a_spreadsheet_would_compute_stay_texts(run: Path, tmp_path: Path) -> None:
    for table in reading_files(run).values():
        change_column(table, "name", lambda _: '=HYPERLINK("http://x")')
    list(export_pictures(load_run(run), tmp_path / "out"))
    text = (tmp_path / "out" / "index.csv").read_text()
    assert "'=HYPERLINK" in text
    assert ",=" not in text and ',"=' not in text


def of_other_type(table: pa.Table, index: int) -> pa.Table:
    kind = table.schema.field(index).type
    values = [str(value) for value in range(len(table))] if pa.types.is_integer(kind) else [1] * len(table)
    return table.set_column(index, table.schema.field(index).name, pa.array(values))


def nested(table: pa.Table, index: int) -> pa.Table:
    return table.set_column(index, table.schema.field(index).name, pa.array([[{"a": 1}]] * len(table)))


def without_values(table: pa.Table, index: int) -> pa.Table:
    field = table.schema.field(index)
    return table.set_column(index, field.name, pa.nulls(len(table), field.type))


def doubled(table: pa.Table, index: int) -> pa.Table:
    return table.append_column(table.schema.field(index), table.column(index))


def out_of_range(table: pa.Table, index: int) -> pa.Table:
    name = table.schema.field(index).name
    column = pa.array([2**63 + 5] * len(table), pa.uint64())
    return table.set_column(index, name, column) if pa.types.is_integer(table.schema.field(index).type) else table


@pytest.mark.parametrize(
    "change",
    [of_other_type, nested, without_values, doubled, out_of_range, lambda table, index: table.remove_column(index)],
    ids=["type", "nested", "null", "doubled", "range", "missing"],
)
def test_a_column_that_does_not_fit_is_named_with_its_file(
    change: Callable[[pa.Table, int], pa.Table], run: Path, tmp_path: Path
) -> None:
    (run / HASHES).unlink()
    readings = next(iter(reading_files(run).values()))
    for path in (part_files(run)[0], readings, run / "labels" / readings.name):
        data, table = path.read_bytes(), pq.read_table(path)
        for index, name in enumerate(table.column_names):
            changed = change(table, index)
            if changed is table or (name == "strength" and change is without_values):
                continue
            pq.write_table(changed, path)
            for number, write_output in enumerate(outputs(run, tmp_path / "out" / f"{path.name}-{name}")):
                if name == "image" and change is without_values and number == 3:
                    continue  # a page shows the pictures that it can show
                with pytest.raises(StoreError, match=r"cannot be read: ") as caught:
                    write_output()
                assert name in str(caught.value) or name == "image", str(caught.value)
                assert readings.stem in str(caught.value) or path.name in str(caught.value)
        path.write_bytes(data)


@pytest.mark.parametrize("tensor", ["conditioning", "reencoded", "embedding", "write_norms", "direct_similarity"])
@pytest.mark.parametrize("change", ["missing", "dimensions", "whole numbers"])
def test_a_tensor_that_does_not_fit_is_named_with_its_file(tensor: str, change: str, run: Path, tmp_path: Path) -> None:
    (run / HASHES).unlink()
    for path in run.rglob("*.safetensors"):
        tensors = load_file(path)
        if tensor not in tensors:
            continue
        held = tensors.pop(tensor)
        if change != "missing":
            tensors[tensor] = held[None] if change == "dimensions" else held.to(torch.int64)
        save_file(tensors, path)
    for write_output in outputs(run, tmp_path / "out"):
        with pytest.raises(StoreError, match=rf"cannot be read: .*safetensors beside it .*'{tensor}'"):
            write_output()


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("encoder", "image_size", [16, {}]),
        ("encoder", "n_layers", "4"),
        ("encoder", "patch_grid", [0, 2]),
        ("encoder", "width", 10**12),
        ("encoder", "readout_tokens", [None]),
        ("decoder", "embedding_size", None),
        ("decoder", "consumes", "anything"),
        ("plan", "seeds", [0, "1"]),
        ("plan", "n_layers", []),
        ("geometry", "window", [16, {}]),
        ("geometry", "resize", 3),
        ("geometry", "size", [-1, 16]),
    ],
)
def test_a_manifest_whose_values_are_of_the_wrong_kind_is_refused(
    part: str, name: str, value: Any, run: Path, tmp_path: Path
) -> None:
    (run / HASHES).unlink()
    path = run / "manifest.json"
    manifest = json.loads(path.read_text())
    geometry = {"resize": "cover", "size": [16, 16], "window": [16, 16]}
    manifest[part] = {**manifest.get(part, geometry), name: value}
    path.write_text(json.dumps(manifest))
    for write_output in outputs(run, tmp_path / "out")[1:]:
        with pytest.raises(StoreError, match=r"cannot be read: "):
            write_output()


def test_a_run_without_readings_is_neither_exported_nor_merged_as_complete(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "inputs")
    (run / "inputs").mkdir()
    for export in (export_pictures, export_parquet):
        with pytest.raises(StoreError, match=r"the readings of \d of \d inputs are missing.*runs verify"):
            list(export(load_run(run), tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert not run_to_end(merge_runs([run], tmp_path / "merged")).complete


def test_no_run_and_no_study_begins_inside_a_run(run: Path, atlas: Atlas) -> None:
    for inside in (run / "sub", run / "figures" / "sub"):
        with pytest.raises(UsageError, match="is inside the run"):
            write(inside, atlas)
        with pytest.raises(UsageError, match="is inside the run"):
            list(merge_runs([run], inside))
        with pytest.raises(UsageError, match="is inside the run"), open_study(inside, {}):
            pass
        assert not inside.exists()
