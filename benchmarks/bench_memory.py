"""Memory of a run of many pictures against one of few: `steerlens lens` and `load_run` as processes.

    python benchmarks/bench_memory.py [--few 10] [--many 1000] [--model FOLDER]

Prints the largest resident set of each process, as the system counts it, and the ratio of many to few. Without
--model a tiny pair with random weights is used, so that pictures and not weights decide. Every input
gets the default sites, one denoising step, both lenses and controls, and a report is written.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from steerlens.runs.summary import run_summary
from steerlens.testing.tiny import save_tiny_pair

_SIZE = (480, 640)
"""Height and width of an input: 0.9 MB in pixels, so that a thousand held at once could not be missed."""

_READ = """
import sys
from steerlens.runs.store import load_run
atlas = load_run(sys.argv[1])
for reading in atlas.readings:
    assert reading.picture.image.size
    for result in atlas.results_of(reading.id):
        assert result.picture.size
    assert atlas.ranked("steering", reading.id)
"""


def main() -> None:
    """Runs every process once and prints what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--few", type=int, default=10)
    parser.add_argument("--many", type=int, default=1000)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = arguments.model or save_tiny_pair(place / "tiny")
        pictures = save_pictures(place / "pictures", arguments.many)
        peaks: dict[str, list[float]] = {"steerlens lens": [], "load_run and look at all": []}
        for count in (arguments.few, arguments.many):
            out = place / f"run-{count}"
            lens = ["-m", "steerlens.cli.main", "lens", *map(str, pictures[:count]), "--model", str(model)]
            lens += ["--steps", "1", "--batch-size", "32", "--no-cache"]
            for name, command in (
                ("steerlens lens", [*lens, "--out", str(out)]),
                ("load_run and look at all", ["-c", _READ, str(out)]),
            ):
                megabytes, seconds = peak(command)
                peaks[name].append(megabytes)
                print(f"{name}, {count} pictures: peak {megabytes:.0f} MB ({seconds:.0f} s)", flush=True)
            print(f"{decoded(out) / count:g} pictures were decoded of each of {count}", flush=True)
        for name, (few, many) in peaks.items():
            print(f"{name}: {many / few:.3f} of the memory for {arguments.many / arguments.few:g} times the pictures")


def decoded(run: Path) -> int:
    """How many pictures a finished run holds.

    Raises:
        RuntimeError: if it is not complete.
    """
    found = run_summary(run)
    if not found.complete:
        raise RuntimeError(f"{run} is not complete")
    return sum(found.decoded.values())


def save_pictures(folder: Path, count: int) -> list[Path]:
    """Pictures that all differ, as JPEG files."""
    folder.mkdir()
    rng, paths = np.random.default_rng(0), list[Path]()
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
        paths.append(folder / f"picture-{number:04d}.jpg")
        coarse.resize(_SIZE[::-1], Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def peak(arguments: list[str]) -> tuple[float, float]:
    """Runs Python in a process of its own; gives its largest resident set in MB, and the seconds it took.

    Raises:
        RuntimeError: if the process failed.
    """
    start = time.perf_counter()
    # Not the subprocess module: only the process that waits is told what its child took.
    child = os.posix_spawn(sys.executable, [sys.executable, *arguments], {**os.environ}, file_actions=_quiet())
    _, status, usage = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"python {' '.join(arguments[:4])} ... ended with {os.waitstatus_to_exitcode(status)}")
    unit = 1e6 if sys.platform == "darwin" else 1e6 / 1024
    return usage.ru_maxrss / unit, time.perf_counter() - start


def _quiet() -> list[tuple[int, int, str, int, int]]:
    return [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]


if __name__ == "__main__":
    main()
