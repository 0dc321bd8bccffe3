"""The README's code runs as it is written."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.slow
def test_python_examples(emoji: object, in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert (in_folder / "out" / "report.html").is_file()
    assert "Trace(1 picture, 12 layers x 6 heads" in capsys.readouterr().out


def test_the_first_example_is_short() -> None:
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) < 15


def test_the_readme_stays_under_150_lines() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) < 150


def test_every_command_shown_is_one_that_exists() -> None:
    from steerlens.cli.main import COMMANDS

    shown = [line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("steerlens ")]
    assert shown
    assert set(shown) <= set(COMMANDS)


def test_every_option_shown_is_one_that_its_command_takes(capsys: pytest.CaptureFixture[str]) -> None:
    from steerlens.cli.main import main

    shown = [line.split() for block in blocks("sh") for line in block.splitlines() if line.startswith("steerlens ")]
    seen = 0
    for words in shown:
        subcommand = words[2:3] if words[1] in ("study", "bridge", "train", "neighbours", "runs", "cache") else []
        assert main([words[1], *subcommand, "--help"]) == 0
        text = capsys.readouterr().out
        for option in (word for word in words if word.startswith("--")):
            assert re.search(rf"{option}\b", text), f"{words[1]} has no {option}"
            seen += 1
    assert seen


def test_every_file_linked_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text(encoding="utf-8"))
    missing = [link for link in links if not (README.parent / link).exists()]
    assert not missing
