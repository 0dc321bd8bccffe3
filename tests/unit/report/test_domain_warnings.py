"""Inputs unlike those that a pair was trained on are said loudly: in the terminal, in the report, and in JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from foreign import like_a_photograph

import steerlens as sl
from steerlens.cli.main import main
from steerlens.report import domain_warnings

QUICK = {"sites": "resid_post.11", "lenses": "diffusion", "controls": 0, "steps": 2}


@pytest.mark.parametrize("seed", range(4))
def test_pictures_with_the_statistics_of_photographs_lie_outside_the_bundled_pair(emoji: Any, seed: int) -> None:
    atlas = sl.look(emoji, [like_a_photograph(seed), sl.sample_picture()], progress=False, **QUICK)
    checks = [atlas.domain(reading.id) for reading in atlas.readings]
    assert [check is not None and check.outside for check in checks] == [True, False], checks
    assert [id for _, _, id in domain_warnings(atlas)] == [atlas.readings[0].id]


def test_the_command_warns_in_the_terminal_in_the_report_and_in_json(
    emoji: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    like_a_photograph(0).save("beach.png")
    words = ["--sites", "resid_post.11", "--lens", "diffusion", "--controls", "0", "--steps", "2"]
    command = ["lens", "beach.png", "sample", *words, "--out", "run"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "WARNING: beach is unlike the pictures that emoji was trained on" in printed.err
    assert "--model rae-dinov2" in printed.err, "and says which model suits"
    assert "sample is unlike" not in printed.err
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    outside = {entry["name"]: entry["domain"]["outside"] for entry in json.loads(printed.out)["pictures"]}
    assert list(outside.values()) == [True, False], outside
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "This input is unlike the pictures that the decoder was trained on" in page
    assert "beach: it is more unusual than" in page


def test_the_explorer_warns_of_each_foreign_input_and_of_no_other(emoji: Any, tmp_path: Path) -> None:
    from steerlens.app import Explorer
    from steerlens.app.models import OpenModel
    from steerlens.app.page import explorer_page, live_input
    from steerlens.app.view import View

    explorer = Explorer([OpenModel("emoji", emoji, {"model": "emoji"})])
    like_a_photograph(0).save(tmp_path / "beach.png")
    explorer.inputs.offer(sl.load_picture(tmp_path / "beach.png"))
    explorer.inputs.offer(sl.sample_picture())
    told = {entry.picture.name: live_input(explorer, View(entry.id))["outside"] for entry in explorer.inputs.all()}
    assert told["sample"] == "" and told["beach"].startswith("it is more unusual than 99"), told
    assert "--model rae-dinov2" in told["beach"]
    assert "unlike the pictures" not in explorer_page(explorer), "the script says it, input by input"
