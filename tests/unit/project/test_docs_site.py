"""The docs site builds without a warning, has a page for every public name, and shows only commands that exist."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

import steerlens
from steerlens.cli.main import COMMANDS

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def test_every_public_name_has_a_place_in_the_reference() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    named = set(re.findall(r"^::: steerlens\.(\w+)$", pages, flags=re.MULTILINE))
    assert set(steerlens.__all__) - {"__version__"} <= named


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"space/README.md"}  # a Space's own card
    assert pages == set(re.findall(r": ([\w/-]+\.md)$", navigation, flags=re.MULTILINE))


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("zensical")
    if not program.exists():
        pytest.skip("zensical is not installed: pip install -e '.[docs]'")
    for name in ("docs", "src/steerlens"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    for name in ("mkdocs.yml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    command = [str(program), "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    look = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    assert 'id="steerlens.look"' in look
    site = tmp_path / "site"
    broken = {
        f"{page.relative_to(site)}: {link}"
        for page in site.rglob("*.html")
        for link in re.findall(r'(?:href|src)="([^"#?:/][^"#?:]*)[#?"]', page.read_text(encoding="utf-8"))
        if not (page.parent / unquote(link)).exists()
    }
    assert not broken


def shown(page: Path) -> list[list[str]]:
    """Commands of a page's shell blocks, as words."""
    blocks = re.findall(
        r"^```(?:sh|console)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    lines = [line.removeprefix("$ ") for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("steerlens ")]


@pytest.mark.parametrize("page", [page for page in PAGES if shown(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_shown_parses(page: Path) -> None:
    from steerlens.cli.main import parse_command

    for words in shown(page):
        assert words[1] in COMMANDS, " ".join(words)
        if "--help" not in words:
            parse_command(words[1], words[2:])


def test_badges_link_the_repository_that_is_given(tmp_path: Path) -> None:
    shutil.copytree(DOCS / "notebooks", tmp_path / "notebooks")
    script = tmp_path / "notebooks" / "badges.py"
    for _ in range(2):  # the second time changes nothing
        subprocess.run([sys.executable, str(script), "owner/name"], check=True)
    assert (tmp_path / "notebooks" / "index.md").read_text(encoding="utf-8").count("[![Open in Colab]") == 3
    first = json.loads((tmp_path / "notebooks" / "first-look.ipynb").read_text(encoding="utf-8"))["cells"]
    assert "github/owner/name/blob/main/docs/notebooks/first-look.ipynb" in first[0]["source"]
    assert [cell["id"] for cell in first].count("badge") == 1
    refused = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert refused.returncode == 1 and "OWNER/NAME" in refused.stderr
