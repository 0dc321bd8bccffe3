"""A new study is a folder and one line in the table: its command, resuming, pages and figures work."""

import json
from pathlib import Path
from types import MappingProxyType

import pytest
from studied import picture
from toy_study import BrightnessStudy

from steerlens import studies
from steerlens.cli.main import main
from steerlens.testing.tiny import save_tiny_pair


@pytest.fixture
def _fifth(monkeypatch: pytest.MonkeyPatch) -> None:
    study = BrightnessStudy()
    monkeypatch.setattr(studies, "STUDIES", MappingProxyType({**studies.STUDIES, study.name: study}))


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    for number in range(8):
        path = tmp_path / "photos" / f"thing{number}" / "0.png"
        path.parent.mkdir(parents=True)
        picture(number).save(path)
    pair = save_tiny_pair(tmp_path / "pair")
    return ["study", "brightness", "--model", str(pair), "--images", str(tmp_path / "photos"), "--count", "5"]


@pytest.mark.usefixtures("_fifth")
def test_a_fifth_study_needs_one_line_in_the_table(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, docs = tmp_path / "study", tmp_path / "docs"
    assert main(["study", "brightness", "--help"]) == 0
    told = capsys.readouterr().out
    assert "Does an embedding survive" in told and "Of the brightness." in told and "Which pair" in told
    assert main([*command, "--out", str(out)]) == 0
    assert "similarity: +" in capsys.readouterr().out
    assert {path.name for path in (out / "figures").iterdir()} == {"similarity.png", "similarity.svg"}
    # It goes on with the same pictures, and refuses others.
    kept = sorted((out / "parts").iterdir())
    kept[0].unlink()
    times = [path.stat().st_mtime_ns for path in kept[1:]]
    summary = json.loads((out / "summary.json").read_text())
    assert main([*command, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_pictures"] == 5
    assert json.loads((out / "summary.json").read_text()) == summary and len(kept) == 5
    assert [path.stat().st_mtime_ns for path in kept[1:]] == times
    assert main([*command, "--out", str(out), "--factor", "0.9"]) == 2
    assert "holds a study with another factor" in capsys.readouterr().err
    # Both pages are written, and show its figure.
    assert main(["study", "page", str(out), "--out", str(docs)]) == 0
    assert "[Brightness](studies/brightness.md)" in (docs / "studies.md").read_text()
    page = (docs / "studies" / "brightness.md").read_text()
    assert "steerlens study brightness" in page and (docs / "images/studies/brightness-similarity.png").is_file()


def test_a_study_that_no_table_holds_has_no_command_and_no_page(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--out", str(tmp_path / "study")]) == 2
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "study.json").write_text(json.dumps({"study": "brightness"}))
    capsys.readouterr()
    assert main(["study", "page", str(tmp_path / "old"), "--out", str(tmp_path / "docs")]) == 2
    assert "which this version of steerlens does not know" in capsys.readouterr().err
