"""Time of `steerlens demo` as a whole process, as a user runs it, without the installation.

    python benchmarks/bench_demo.py [--repeats 3]

Prints the median of the whole process in seconds and the pictures decoded.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Runs the demo in fresh folders and prints what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    seconds: list[float] = []
    pictures = 0
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "demo"
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "steerlens.cli.main", "demo", "--out", str(out)], check=True, capture_output=True
            )
            seconds.append(time.perf_counter() - start)
            pictures = len(json.loads((out / "manifest.json").read_text())["plan"]["cells"])
    middle, low, high = statistics.median(seconds), min(seconds), max(seconds)
    print(f"steerlens demo, {pictures} pictures decoded: median {middle:.1f} s ({low:.1f} to {high:.1f})")


if __name__ == "__main__":
    main()
