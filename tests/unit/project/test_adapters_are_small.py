"""Adapters are small, and no code is a copy of another's."""

import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src"
ADAPTER_LINES, COPIED_LINES = 150, 12


def adapter_files() -> list[Path]:
    """The file of each registered encoder, and the adapters in the folder of each registered decoder."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    encoders = {
        SOURCE / f"{name.partition(':')[0].replace('.', '/')}.py" for name in groups["steerlens.encoders"].values()
    }
    folders = {SOURCE / name.partition(":")[0].replace(".", "/") for name in groups["steerlens.decoders"].values()}
    decoders = {path for folder in folders for path in folder.glob("*adapter.py")}
    return sorted(encoders | decoders)


def code_lines(path: Path) -> list[str]:
    """Lines of a file without indentation, blank lines and imports."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith(("import ", "from "))]


def test_adapters_have_few_lines() -> None:
    sizes = {path.relative_to(SOURCE): len(path.read_text().splitlines()) for path in adapter_files()}
    assert len(sizes) > 20
    assert not {path: lines for path, lines in sizes.items() if lines > ADAPTER_LINES}


def test_no_code_is_a_copy() -> None:
    places: dict[tuple[str, ...], set[Path]] = defaultdict(set)
    for path in SOURCE.rglob("*.py"):
        lines = code_lines(path)
        for start in range(len(lines) - COPIED_LINES):
            places[tuple(lines[start : start + COPIED_LINES + 1])].add(path)
    assert len(places) > 20_000
    assert not {block[0]: files for block, files in places.items() if len(files) > 1}
