"""Runs and kept traces of version 0.1.0 are read, resumed, merged and found by the present version."""

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from before import LOOKED_AT, PLACE, lens
from compare_summaries import differences
from PIL import Image

import steerlens as sl
from steerlens.cli.main import main


def cells(table: Path) -> list[dict[str, Any]]:
    """The rows of an exported run, in an order of their own."""
    rows = pq.read_table(table).to_pylist()
    return sorted(rows, key=lambda row: tuple(str(row[name]) for name in ("input", "lens", "site", "seed", "draw")))


def look(folder: str, *pictures: str) -> None:
    """What the command `lens(folder, *pictures)` does, without drawing a report."""
    options = {"sites": "L0H0,L2H1,resid_post.2", "steps": 1, "batch_size": 4}
    pair = sl.load("pair", device="cpu", dtype="float32")
    sl.look(pair, pictures or LOOKED_AT, **options, cache=True, folder=folder)


def exported(run: str, out: str) -> Path:
    assert main(["runs", "export", run, "--format", "parquet", "--out", out]) == 0
    return Path(out)


def contents(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()}


def pixels(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])), dtype=float) for row in rows])


def equal_but_for_rounding(run: str) -> bool:
    """Whether a run is the one of version 0.1.0; another processor rounds otherwise, which the decoder carries on."""
    wanted, got = cells(Path("run.parquet")), cells(exported(run, f"{run}.parquet"))
    unlike = list(differences(wanted, got, ("image",), tolerance=2e-3))
    assert unlike == []
    return bool(np.abs(pixels(wanted) - pixels(got)).mean() < 1)


def test_a_run_opens_with_all_it_held(before: Path) -> None:
    atlas = sl.load_run("run")
    assert len(atlas.results) == 14 and [reading.picture.name for reading in atlas.readings] == ["04", "02"]
    assert atlas.manifest["complete"] is True
    assert {str(label.site) for label in atlas.readings[0].labels} >= {"head.0.0", "head.2.1", "resid_post.2"}
    assert cells(exported("run", "now.parquet")) == cells(Path("run.parquet"))


def test_a_run_is_shown_and_reported(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "show", "run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["complete"] is True and shown["inputs"] == ["04", "02"]
    assert shown["planned"] == shown["decoded"] == {"diffusion": 6, "steering": 4, "control": 4}
    assert main(["runs", "export", "run", "--format", "report", "--out", "page"]) == 0
    assert "14 decoded pictures" in Path("page/report.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_the_command_that_made_a_run_finds_it_done(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = contents(before / "run" / "cells", before / "run" / "inputs")
    manifest = (before / "run" / "manifest.json").read_bytes()
    assert main(lens("run")) == 0
    assert "every picture is in run already" in capsys.readouterr().err
    assert contents(before / "run" / "cells", before / "run" / "inputs") == held
    assert (before / "run" / "manifest.json").read_bytes() == manifest


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_was_stopped_is_finished(before: Path) -> None:
    held = contents(before / "run-half" / "cells", before / "run-half" / "inputs")
    assert sl.load_run("run-half").manifest["complete"] is False
    assert main(lens("run-half")) == 0
    now = contents(before / "run-half" / "cells", before / "run-half" / "inputs")
    assert {path: now[path] for path in held} == held
    assert sl.load_run("run-half").manifest["complete"] is True
    assert equal_but_for_rounding("run-half")


def test_other_options_are_refused_by_name(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = contents(before / "run-half")
    assert main([*lens("run-half"), "--guidance", "2"]) == 2
    error = capsys.readouterr().err
    assert (
        "run-half contains a run with another options.guidance: 4.0, while" in error and "give another --out" in error
    )
    assert {path: data for path, data in contents(before / "run-half").items() if path in held} == held


def test_a_run_is_merged_with_one_of_now(before: Path) -> None:
    look("now", "pictures/green apple/01.png")
    assert main(["runs", "merge", "run", "now", "--out", "merged"]) == 0
    merged = cells(exported("merged", "merged.parquet"))
    assert len(merged) == 21 and sl.load_run("merged").manifest["complete"] is True
    both = [*cells(Path("run.parquet")), *cells(exported("now", "now.parquet"))]
    assert all(row in merged for row in both)


def test_a_run_of_now_goes_into_one_that_was_stopped(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same cells, some decoded then and some now, count once and do not contradict each other."""
    look("now")
    capsys.readouterr()
    assert main(["runs", "merge", "run-half", "now", "--out", "merged", "--json"]) == 0
    merged = json.loads(capsys.readouterr().out)
    assert merged["complete"] is True and merged["cells"] == 14 and merged["duplicates"] == 8


def model_of(cache: Path) -> Path:
    (folder,) = (cache / "traces").iterdir()
    return folder


def keep_as(folder: Path, **conditions: Any) -> Path:
    """Renames the traces kept by version 0.1.0 as if it had kept them under other conditions."""
    described = json.loads((folder / "model.json").read_bytes()) | conditions
    (folder / "model.json").write_text(json.dumps(described))
    decisive = {key: value for key, value in described.items() if key != "name"}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
    return folder.rename(folder.with_name(digest[:16]))


def test_kept_traces_of_the_same_machine_and_libraries_are_found(before: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look("fresh")
    now = model_of(Path(before.parent, "traces"))
    described = json.loads((now / "model.json").read_bytes())
    kept = keep_as(model_of(before / "cache"), versions=described["versions"], device=described["device"])
    assert kept.name == now.name
    assert {path.name for path in kept.iterdir()} == {path.name for path in now.iterdir()}
    entries = {path: path.stat().st_ino for path in kept.glob("*.safetensors")}
    monkeypatch.setenv("STEERLENS_CACHE", str(before / "cache"))
    look("again")
    # An entry that is written again is another file under the same name.
    assert {path: path.stat().st_ino for path in kept.glob("*.safetensors")} == entries
    assert equal_but_for_rounding("again")


def test_kept_traces_of_other_libraries_are_left_alone_and_taken_anew(
    before: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = json.loads((model_of(before / "cache") / "model.json").read_bytes())["versions"] | {"torch": "1.0"}
    kept = keep_as(model_of(before / "cache"), versions=other)
    held = contents(kept)
    monkeypatch.setenv("STEERLENS_CACHE", str(before / "cache"))
    look("again")
    folders = sorted((before / "cache" / "traces").iterdir())
    assert len(folders) == 2 and contents(kept) == held
    assert all(len(list(folder.glob("*.safetensors"))) == 2 for folder in folders)
    assert equal_but_for_rounding("again")


def test_kept_traces_are_shown_and_cleared(
    before: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEERLENS_CACHE", str(before / "cache"))
    assert main(["cache", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == 2
    assert main(["cache", "clear", "--model", "pair"]) == 0
    assert not list((before / "cache").rglob("*.safetensors"))


@pytest.mark.usefixtures("undrawn")
def test_a_bridge_is_shown_and_looked_through(before: Path, capsys: pytest.CaptureFixture[str]) -> None:

    card = before / "bridge" / "card.yaml"
    card.write_text(card.read_text().replace(PLACE, str(before)))
    assert main(["bridge", "show", "bridge", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measured"]["n_pictures"] == 15
    command = ["lens", "pictures/sun/04.png", "--model", "bridge:bridge", "--device", "cpu", "--dtype", "float32"]
    assert main([*command, "--sites", "L0H0", "--steps", "1", "--out", "through", "--json"]) == 0
    (seen,) = json.loads(capsys.readouterr().out)["pictures"]
    assert [row["site"] for row in seen["steering"]] == ["head.0.0"]


def test_a_bridge_whose_encoder_has_moved_says_what_to_do(before: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("pair/image_encoder")
    assert main(["lens", "pictures/sun/04.png", "--model", "bridge:bridge", "--out", "through"]) in (1, 2)
    error = capsys.readouterr().err
    assert "Traceback" not in error and "FOLDER/pair" in error
