"""`make bench` runs every benchmark, and lists skipped and failed ones."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = sorted(path.name for path in (ROOT / "benchmarks").glob("bench_*.py"))
NEEDY = ("bench_bridge.py", "bench_features.py")
"""Benchmarks that need what no package contains: a second ViT, prepared pictures."""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed: install it to run these")


def bench(folder: Path, *, failing: str = "none", **variables: str) -> tuple[int, str, list[str]]:
    """`make bench` with a python that only writes down what it was given: exit code, what was said, what was run."""
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\necho "$@" >> {folder}/ran\ncase "$1" in *{failing}*) exit 3;; esac\n')
    python.chmod(0o755)
    for name in (".installed", ".tested"):
        (folder / name).touch()
    command = [
        "make",
        "-C",
        str(ROOT),
        "bench",
        f"VENV={folder}",
        *(f"{key}={value}" for key, value in variables.items()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, (folder / "ran").read_text().splitlines()


def test_every_benchmark_runs_but_those_that_are_named_as_skipped(tmp_path: Path) -> None:
    code, said, ran = bench(tmp_path, DATA=str(tmp_path / "missing"))
    assert code == 0
    assert ran == [f"benchmarks/{name}" for name in SCRIPTS if name not in NEEDY]
    assert all(f"skipped: benchmarks/{name}, which needs " in said for name in NEEDY)


def test_one_that_fails_stops_none_and_is_named_at_the_end(tmp_path: Path) -> None:
    data = tmp_path / "art"
    data.mkdir()
    code, said, ran = bench(tmp_path, failing="bench_ablation", ENCODER="some/vit", DATA=str(data))
    assert code != 0
    assert [line.split()[0] for line in ran] == [f"benchmarks/{name}" for name in SCRIPTS]
    assert f"benchmarks/bench_bridge.py --data {data} --from some/vit" in ran
    assert f"benchmarks/bench_features.py --data {data}" in ran
    assert "FAILED: benchmarks/bench_ablation.py" in said
    assert "skipped" not in said


def test_no_other_benchmark_demands_arguments() -> None:
    demanding = [
        name
        for name in SCRIPTS
        if re.search(r"required=True", (ROOT / "benchmarks" / name).read_text(encoding="utf-8"))
    ]
    assert demanding == ["bench_bridge.py"]
