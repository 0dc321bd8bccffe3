"""README, CONTRIBUTING and the pages in docs/ name only modules, files, links and names that exist."""

import importlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "src" / "steerlens"

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])

ENDINGS = ("py", "md", "yaml", "toml", "cff")
"""Endings of the files that a page may name; folders end with a slash."""

OTHERS = {
    *("owl/", "cat/"),  # folders of a user's pictures
    *("card.yaml", "report.html", "figures/", "units/"),  # in runs and bridges
    "studies.md",  # written by `steerlens study page`, wherever it is told to
    "real-vit/",  # written by `make real-vit`
}
"""Files that a command writes; no checkout holds them."""


def spans(text: str) -> Iterator[str]:
    """Code spans of a page outside its blocks of code."""
    for block in re.split(r"^```.*?^```", text, flags=re.DOTALL | re.MULTILINE):
        yield from re.findall(r"`([^`\n]+)`", block)


def modules(text: str) -> set[str]:
    """Dotted names within the package, in prose and in code."""
    return {name.rstrip(".") for name in re.findall(r"(?<![\w/.-])steerlens(?:\.[A-Za-z_]\w*)+", text)}


def files(text: str) -> set[str]:
    """Paths in code spans that look like files or folders of the repository."""
    named = (word.strip("`,;:()") for span in spans(text) for word in span.split())
    pattern = rf"[\w][\w./-]*(?:\.(?:{'|'.join(ENDINGS)})|/)"
    return {path for path in named if re.fullmatch(pattern, path)} - OTHERS


def exists(path: str, page: Path) -> bool:
    """Whether a path exists beside the page, in the repository or in the package; bare names may be in any room."""
    if any((folder / path).exists() for folder in (page.parent, ROOT, ROOT / "benchmarks", PACKAGE)):
        return True
    return "/" not in path.rstrip("/") and any(PACKAGE.rglob(path.rstrip("/")))


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    parts = name.split(".")
    for stop in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:stop]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[stop:]:
            if not hasattr(value, attribute):
                return False
            value = getattr(value, attribute)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_modules_that_exist(page: Path) -> None:
    groups = {"steerlens.encoders", "steerlens.decoders"}  # entry-point groups have the names of rooms
    named = modules(page.read_text(encoding="utf-8")) | groups
    assert not [name for name in sorted(named) if not resolves(name)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_only_files_that_exist(page: Path) -> None:
    assert not [path for path in sorted(files(page.read_text(encoding="utf-8"))) if not exists(path, page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_links_only_to_files_that_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_names_in_contributing_stand_in_the_files_beside_them() -> None:
    """`scores.py`: `plain_scores` names a function of that file."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    named = [
        (path, name)
        for line in tables
        for path, inside in re.findall(r"`([\w/]+\.py)`,? \(([^)]*)\)", line)
        for name in re.findall(r"`([A-Za-z_]\w*)`", inside)
    ]
    assert named
    assert not [(path, name) for path, name in named if name not in (PACKAGE / path).read_text(encoding="utf-8")]


def rooms() -> list[tuple[list[str], list[str]]]:
    """Rows of the table of rooms: the rooms, and the files that are named beside them."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    columns = [line.split("|")[1:3] for line in text.splitlines() if re.match(r"\| `\w+(/|\.py)`", line)]
    return [
        (re.findall(r"`(\w+(?:/|\.py))`", left), re.findall(r"`(\w+(?:/|\.py))`", right)) for left, right in columns
    ]


def test_the_table_of_rooms_is_complete() -> None:
    named = [room.rstrip("/") for row, _ in rooms() for room in row]
    there = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert sorted(named) == sorted(there - {"__init__.py"})


def test_files_in_the_table_of_rooms_are_in_their_room() -> None:
    pairs = [(row[0], file) for row, inside in rooms() for file in inside]
    assert len(pairs) > 30
    assert not [(room, file) for room, file in pairs if not (PACKAGE / room / file).exists()]


def test_a_wrong_name_would_be_noticed() -> None:
    text = "See `steerlens.zoo.no_such_module`, `lenses/no_such_file.py` and `lenses/steering.py`."
    assert not resolves("steerlens.zoo.no_such_module") and not resolves("steerlens.zoo.load_encoders")
    assert modules(text) == {"steerlens.zoo.no_such_module"}
    assert {path for path in files(text) if not exists(path, ROOT / "README.md")} == {"lenses/no_such_file.py"}
