"""Compares two folders of study summaries and of printed benchmark results, to the last digit.

    python benchmarks/compare_summaries.py OLD NEW [--ignore KEY ...]

Files of the same name below both folders are compared: JSON value by value, parquet tables cell by cell, printed text
line by line. Times, versions, hashes of layouts, and files that contain nothing else are ignored. Prints differences;
exits with 1 if there are any, and with 2 if there is nothing to compare.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

FILES = ("*.json", "*.parquet", "*.txt")

PASSED_OVER = ("provenance.json", "timings.json")
"""Files that say when, where and with what a study was run, not what it found."""

KEYS = ("fingerprint", "format", "layout", "provenance", "resumed", "seconds", "time", "timings", "version", "versions")
"""Entries of JSON files that may differ between equal results."""

_TIMED = re.compile(r"^machine|\d ?(s|ms|seconds|min)\b|\d(\.\d+)?x (faster|slower)|(pictures|latents) a second")
"""Lines of a benchmark that depend on the machine and its load."""

_MISSING = object()


def differences(old: Any, new: Any, ignore: tuple[str, ...] = KEYS, tolerance: float = 0.0) -> Iterator[str]:
    """Every place at which two JSON values differ, one line each.

    Args:
        old: a JSON value.
        new: another.
        ignore: keys that are passed over wherever they stand.
        tolerance: largest difference of two numbers that count as equal.
    """
    yield from _differences(old, new, "", ignore, tolerance)


def _differences(old: Any, new: Any, place: str, ignore: tuple[str, ...], tolerance: float) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            if key not in ignore:
                sides = old.get(key, _MISSING), new.get(key, _MISSING)
                yield from _differences(*sides, f"{place}/{key}", ignore, tolerance)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, sides in enumerate(zip(old, new, strict=True)):
            yield from _differences(*sides, f"{place}[{index}]", ignore, tolerance)
    elif not _equal(old, new, tolerance):
        yield f"{place or 'value'}: {_shown(old)} -> {_shown(new)}"


def _equal(old: Any, new: Any, tolerance: float) -> bool:
    numbers = all(isinstance(side, int | float) and not isinstance(side, bool) for side in (old, new))
    if numbers:
        return old == new or (old != old and new != new) or abs(old - new) <= tolerance
    return type(old) is type(new) and old == new


def _shown(value: Any) -> str:
    if value is _MISSING:
        return "(not there)"
    text = json.dumps(value, ensure_ascii=False, default=repr)
    if isinstance(value, list):
        return f"{len(value)} values"
    return text if len(text) <= 80 else f"{text[:77]}..."


def content(path: Path) -> Any:
    """What a file holds, as JSON values."""
    if path.suffix == ".json":
        return json.loads(path.read_bytes())
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pydict()
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not _TIMED.search(line)]


def compared_files(folder: Path) -> set[Path]:
    """The files of a folder that are compared, relative to it."""
    found = {path.relative_to(folder) for pattern in FILES for path in folder.rglob(pattern)}
    return {path for path in found if path.name not in PASSED_OVER}


def main(arguments: list[str] | None = None) -> int:
    """Prints what differs and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument(
        "--ignore", nargs="*", default=(), metavar="KEY", help="further keys of JSON files to pass over"
    )
    parser.add_argument("--most", type=int, default=20, help="differences of one file that are printed")
    options = parser.parse_args(arguments)
    old, new = compared_files(options.old), compared_files(options.new)
    for path in sorted(old ^ new):
        print(f"{path}: only in {options.old if path in old else options.new}")
    differing = 0
    for path in sorted(old & new):
        sides = content(options.old / path), content(options.new / path)
        found = list(differences(*sides, ignore=(*KEYS, *options.ignore)))
        differing += bool(found)
        for line in found[: options.most]:
            print(f"{path}: {line}")
        if len(found) > options.most:
            print(f"{path}: {len(found) - options.most} more differences")
    if not old & new:
        print(f"nothing to compare: no file of {options.old} has its like in {options.new}")
        return 2
    print(f"{len(old & new)} files compared, {differing} differ, {len(old ^ new)} on one side alone")
    return 1 if differing or old ^ new else 0


if __name__ == "__main__":
    sys.exit(main())
