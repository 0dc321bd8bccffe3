"""`steerlens runs` and `steerlens cache`: real processes on a tiny pair."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from commands import steerlens, steerlens_process
from PIL import Image

from steerlens.cli.main import main
from steerlens.images import load_pictures
from steerlens.loading import load
from steerlens.sweep.look import look
from steerlens.testing.tiny import save_tiny_pair


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny pair, two pictures, and a finished run of both."""
    place = tmp_path_factory.mktemp("place")
    save_tiny_pair(place / "tiny")
    for number, name in enumerate(("a cup", "b/cat")):
        path = place / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    pair = load(place / "tiny", dtype="float32", device="cpu")
    pictures = load_pictures([place / "a cup.png", place / "b" / "cat.png"])
    look(pair, pictures, steps=1, sites="heads", n_seeds=2, folder=place / "run")
    return place


def test_what_a_run_holds_is_shown_in_words_and_as_json(place: Path) -> None:
    done = steerlens_process("runs", "show", place / "run")
    assert done.returncode == 0, done.stderr
    assert "complete" in done.stdout
    assert "2 (a cup, cat)" in done.stdout
    assert "steering 24 of 24" in done.stdout
    assert done.stderr == ""


def test_json_holds_all_of_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "show", str(place / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["planned"] == found["decoded"] == {"diffusion": 28, "steering": 24, "control": 24}
    assert found["complete"] is True and found["being_written"] is False
    assert found["inputs"] == ["a cup", "cat"] and found["read"] == 2
    assert found["options"]["steps"] == 1 and found["seeds"] == [0, 1]
    assert found["size"] > 10_000 and found["seconds"] >= 0


def test_runs_are_merged_and_exported(place: Path, tmp_path: Path) -> None:
    done = steerlens_process("runs", "merge", place / "run", "--out", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    assert "76 of 76" in done.stdout
    done = steerlens("runs", "export", tmp_path / "merged", "--format", "parquet", "--out", tmp_path / "all.parquet")
    assert done.returncode == 0, done.stderr
    assert pq.read_metadata(tmp_path / "all.parquet").num_rows == 76
    done = steerlens("runs", "export", tmp_path / "merged", "--format", "png", "--out", tmp_path / "png", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pictures"] == 76
    with (tmp_path / "png" / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 76
    assert "a-cup/steering/head.1.0-seed1.png" in {row["file"] for row in rows}


def test_an_export_that_is_stopped_says_that_nothing_was_written_and_nothing_is(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("steerlens.cli.console.ProgressBar.advance", stop)
    for form, out in (("png", tmp_path / "png"), ("parquet", tmp_path / "all.parquet")):
        assert main(["runs", "export", str(place / "run"), "--format", form, "--out", str(out)]) == 130
        assert "The run is unchanged; nothing was written." in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


def test_a_report_of_some_inputs(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["runs", "export", str(place / "run"), "--format", "report", "--inputs", "cat"]
    assert main([*arguments, "--out", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "report.html").read_text()
    assert "38 decoded pictures" in page
    assert "cat · steerlens" in page and "a cup" not in page.split("Settings and provenance")[0]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["runs", "show", "{place}/tiny"], 2, "not a run"),
        (["runs", "merge", "--out", "{out}"], 2, "no runs were given"),
        (["runs", "merge", "{place}/run", "--out", "{place}/run"], 2, "one of the runs"),
        (["runs", "export", "{place}/run", "--format", "png", "--out", "{place}"], 2, "is not empty"),
        (["runs", "export", "{place}/run", "--format", "parquet", "--out", "{place}/a cup.png"], 2, "exists already"),
        (["runs", "export", "{place}/run", "--format", "png", "--inputs", "dog", "--out", "{out}"], 2, "'dog'"),
        (["cache", "clear", "--model", "unheard"], 2, "unheard"),
    ],
)
def test_a_wrong_request_is_one_clear_line(
    arguments: list[str], code: int, said: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([part.format(place=place, out=tmp_path / "out") for part in arguments]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_commands_keep_traces_show_and_clear_them(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEERLENS_CACHE", str(tmp_path / "cache"))
    run = ["lens", str(place / "a cup.png"), "--model", str(place / "tiny"), "--steps", "1", "--sites", "L1H0"]
    assert main([*run, "--json", "--no-cache", "--out", str(tmp_path / "one")]) == 0
    assert not (tmp_path / "cache").exists()
    assert main([*run, "--json", "--out", str(tmp_path / "two")]) == 0
    capsys.readouterr()
    assert main(["cache", "show", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["entries"] == 1 and 0 < found["bytes"] < found["limit_bytes"]
    assert found["folder"] == str(tmp_path / "cache")
    (model,) = found["models"]
    assert main(["cache", "show"]) == 0
    assert "1 traces" in capsys.readouterr().out
    assert main(["cache", "clear", "--model", model["name"]]) == 0
    assert "removed 1 traces" in capsys.readouterr().out
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_where_traces_come_from_does_not_make_another_run() -> None:
    from steerlens.cli.lens import Command, LensSettings
    from steerlens.cli.lens.settings import DecodingSettings

    assert (
        Command((Path("cat.png"),), LensSettings(decoding=DecodingSettings(cache=False))).folder
        == Command((Path("cat.png"),)).folder
    )


def test_runs_are_published_as_a_site(place: Path, tmp_path: Path) -> None:
    done = steerlens_process("runs", "publish", place / "run", "--out", tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert "76 pictures of 2 inputs of 1 run" in done.stdout
    assert (tmp_path / "site" / "run" / "a-cup.html").is_file()
    done = steerlens("runs", "publish", place / "run", "--out", tmp_path / "site")
    assert (done.returncode, "contains a site already" in done.stderr) == (2, True)
    done = steerlens("runs", "publish", place / "run", "--out", place / "run" / "site")
    assert (done.returncode, "is inside the run" in done.stderr) == (2, True)


def test_nothing_is_uploaded_without_the_user_s_word(place: Path, tmp_path: Path) -> None:
    for extra in (["--dry-run"], []):  # without a terminal there is nobody to agree
        out = tmp_path / f"site{len(extra)}"
        done = steerlens("runs", "publish", place / "run", "--out", out, "--to", "hub:ada/atlas", *extra)
        assert done.returncode == 0, done.stderr
        assert "space ada/atlas: " in done.stdout and "dataset ada/atlas: 2 files" in done.stdout
        assert "  data/run.parquet" in done.stdout
        assert f"nothing was uploaded; the site is in {out}" in done.stdout
        assert "steerlens-upload" not in done.stdout, "a folder that is gone by then"
        (files,) = re.findall(r"space ada/atlas: (\d+) files", done.stdout)
        listed = len(re.findall(r"^  \S.*  [\d.]+ \w+$", done.stdout, flags=re.MULTILINE)) - 2
        assert (listed == int(files)) is bool(extra) and ("--dry-run lists every file" in done.stdout) is not bool(
            extra
        )
    done = steerlens("runs", "publish", place / "run", "--out", tmp_path / "other", "--dry-run")
    assert (done.returncode, "add --to hub:USER/NAME" in done.stderr) == (2, True)
    assert not (tmp_path / "other").exists()
