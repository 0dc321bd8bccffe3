"""`steerlens profile`: on a tiny pair, from a folder of pictures, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steerlens.cli.main import main


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / f"cat {number}.png")
    return folder


def test_a_folder_of_pictures_becomes_profiles(
    pair_folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = [
        "profile",
        "--model",
        pair_folder,
        "--images",
        photos,
        "--out",
        out,
        "--heads",
        "L1H0,head.2.*",
        "--top",
        2,
    ]
    arguments += ["--ablate", 1, "--steps", 1, "--json"]
    first = [tmp_path / "first" if argument is out else argument for argument in arguments[:-1]]
    assert main(list(map(str, first))) == 0
    progress = capsys.readouterr().err
    for counted in ("mean writes: 5 of 5", "axes: 30 of 30", "pictures: 5 of 5"):
        assert counted in progress, "the first batch counts too"
    assert main(list(map(str, arguments))) == 0
    told = json.loads(capsys.readouterr().out)
    assert [head["site"] for head in told["heads"]] == ["head.1.0", "head.2.0", "head.2.1"]
    assert told["pictures"] == 5
    assert Path(told["page"]) == out / "profile.html"
    assert (out / "profile.html").read_text().startswith("<!doctype html>")
    kept = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    assert main(list(map(str, arguments[:-1]))) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()} == kept
    assert "3 heads over 5 pictures" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--heads", "mlp_out.1"], "is not a head"),
        (["--heads", "L9H0"], "3 layers"),
        (["--top", "4"], "too few for"),
        (["--top", "0"], "--top must be at least 1"),
        (["--count", "1"], "needs more pictures"),
        (["--strength", "loud"], "not a strength"),
        (["--data", "here"], "either --images"),
        (["--vocabulary", "missing.txt"], "missing.txt"),
    ],
)
def test_a_wrong_request_is_one_clear_line_and_leaves_nothing(
    extra: list[str], said: str, pair_folder: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = [
        "profile",
        "--model",
        str(pair_folder),
        "--images",
        str(photos),
        "--out",
        str(out),
        "--steps",
        "1",
        *extra,
    ]
    assert main([*arguments, "--json"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_pictures_must_come_from_somewhere(
    pair_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", "--model", str(pair_folder), "--out", str(tmp_path / "out"), "--json"]) == 2
    assert "steerlens train prepare" in capsys.readouterr().err
