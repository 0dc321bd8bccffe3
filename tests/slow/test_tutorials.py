"""Tutorials run as they stand, block by block, in a folder with pictures."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import ImageOps

from steerlens.cli.main import main
from steerlens.zoo import sample_picture

DOCS = Path(__file__).parents[2] / "docs"
TUTORIALS = sorted(page.name for page in (DOCS / "tutorials").glob("*.md"))
CONCEPTS = ("owl", "cat face", "dog face", "fox", "panda", "koala", "frog", "penguin")
"""Names that the bundled vocabulary knows; what the pictures show does not matter here."""


def write_pictures(folder: Path) -> None:
    """Two pictures of every concept, all of them different."""
    folder.mkdir()
    sample = sample_picture().image
    for number, concept in enumerate(CONCEPTS):
        turned = sample.rotate(40 * number, fillcolor="white")
        turned.save(folder / f"{concept} 1.png")
        ImageOps.mirror(turned).save(folder / f"{concept} 2.png")


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS)
def test_a_tutorial_runs(
    page: str, emoji: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures")
    (tmp_path / "words.txt").write_text("owl\nbell\ngreen heart\n")
    names: dict[str, object] = {}
    text = (DOCS / "tutorials" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```(sh|python)\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    for language, block in blocks:
        if language == "python":
            exec(compile(block, page, "exec"), names)
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["steerlens"]:
                code = main(words[1:])
                assert code == 0, f"{line}: {capfd.readouterr().err}"
