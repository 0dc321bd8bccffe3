"""Sweeps that are killed at random moments and resumed: the stored run must not differ from an undisturbed one.

    python tests/soak/killing.py [--kills 20] [--seed 0]

The processes are real ones of the command line, on a tiny pair with random weights, killed by SIGKILL.
"""

import argparse
import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from steerlens.cli.main import main as steerlens
from steerlens.runs.manifest import stored_manifest
from steerlens.runs.reader import part_files, part_keys
from steerlens.runs.store import load_run
from steerlens.testing.tiny import save_tiny_pair

_PATIENCE = 300.0
"""Seconds after which a process that does nothing fails the test."""


@dataclass(frozen=True)
class Sweep:
    """A command that takes some seconds, part by part, and a run of it that nothing disturbed.

    Attributes:
        arguments: of the command line, but for the run directory.
        undisturbed: the run directory of a run that was never stopped.
    """

    arguments: tuple[str, ...]
    undisturbed: Path

    @classmethod
    def prepare(cls, folder: Path, *, pictures: int = 1, steps: int = 20) -> "Sweep":
        """Makes a pair and pictures, and runs the command once in this process.

        Args:
            folder: where to put all of it.
            pictures: inputs; each has 21 cells, decoded 3 at a time.
            steps: denoising steps, which decide how long a part takes.
        """
        model, files = save_tiny_pair(folder / "tiny"), list[str]()
        for number in range(pictures):
            path = folder / f"picture-{number}.png"
            pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            files.append(str(path))
        options = ("--model", str(model), "--steps", str(steps), "--batch-size", "3", "--json")
        sweep = cls(("lens", *files, *options), folder / "undisturbed")
        require(sweep.finish(sweep.undisturbed) == 0, "the undisturbed run failed")
        return sweep

    def command(self, out: Path) -> list[str]:
        """The command line of the sweep."""
        return [*self.arguments, "--out", str(out)]

    def finish(self, out: Path) -> int:
        """Runs the sweep to its end in this process, and returns its exit code."""
        with contextlib.redirect_stdout(io.StringIO()):
            return steerlens(self.command(out))

    def start(self, out: Path) -> "subprocess.Popen[str]":
        """Starts the sweep as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "steerlens.cli.main", *self.command(out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            # A shell that runs tests in the background has them, and what they start, ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def kill(self, out: Path, rng: random.Random) -> bool:
        """Starts the sweep and kills it at a random moment; True if the signal ended it before it was complete."""
        process, before = self.start(out), len(part_files(out))
        more = rng.choice((0, 0, 1, 1, 2))
        wait_for(process, lambda: out.is_dir() and len(part_files(out)) >= before + more)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return process.returncode == -signal.SIGKILL and not _is_complete(out)

    def check(self, out: Path) -> None:
        """Makes sure that a run holds each cell exactly once, and is equal to the undisturbed one.

        Raises:
            RuntimeError: if it is not.
        """
        stored, plain = load_run(out), load_run(self.undisturbed)
        require(stored.manifest["complete"] is True, "the run is not complete")
        counts = Counter(key for path in part_files(out) for key in part_keys(path))
        require(counts == Counter(cell.key for cell in plain.plan.cells), "cells are missing, or there twice")
        for one, other in zip(stored.results, plain.results, strict=True):
            require(one.cell == other.cell, f"{one.cell.key} stands where {other.cell.key} should")
            require(one.png == other.png, f"the picture of {one.cell.key} is another")
            require(torch.equal(one.conditioning, other.conditioning), f"the conditioning of {one.cell.key} is another")
            numbers = [(held.rho, held.similarity, held.steered_similarity, held.fidelity) for held in (one, other)]
            require(numbers[0] == numbers[1], f"the numbers of {one.cell.key} are others")
        for one, other in zip(stored.readings, plain.readings, strict=True):
            require(one.labels == other.labels, f"the labels of {one.id} are others")
            require(torch.equal(one.embedding, other.embedding), f"the embedding of {one.id} is another")
        hidden = [path.name for path in out.rglob(".*") if path.name != ".lock"]
        require(not hidden, f"files were left behind: {hidden}")


def _is_complete(out: Path) -> bool:
    manifest = stored_manifest(out)
    return manifest is not None and manifest["complete"] is True


def require(holds: bool, otherwise: str) -> None:
    """Fails with a message, in a script as in a test."""
    if not holds:
        raise RuntimeError(otherwise)


def wait_for(process: "subprocess.Popen[str]", happened: object) -> None:
    """Waits until something has happened, or the process has ended."""
    deadline = time.monotonic() + _PATIENCE
    while not happened() and process.poll() is None:  # type: ignore[operator]
        require(time.monotonic() < deadline, f"nothing happened in {_PATIENCE:g} seconds")
        time.sleep(0.01)


def main() -> None:
    """Kills sweeps until the requested number of kills hit a running one; each sweep is finished and checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, kills, rounds = random.Random(arguments.seed), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        sweep = Sweep.prepare(Path(folder), pictures=2)
        while kills < arguments.kills:
            out = Path(folder) / f"run-{rounds}"
            while kills < arguments.kills and sweep.kill(out, rng):
                kills += 1
                say(f"kill {kills}: {len(part_files(out))} parts were stored")
            require(sweep.finish(out) == 0, "the run could not be resumed")
            sweep.check(out)
            rounds += 1
            say(f"sweep {rounds} is equal to the undisturbed one")
    say(f"{kills} kills in {rounds} sweeps: every cell exactly once, every picture equal byte for byte")


def say(text: str) -> None:
    """Writes one line at once, whatever the command's own output is."""
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
