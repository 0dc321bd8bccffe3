"""Mutated inputs of every kind through the command line: a fuzzer.

    python tests/fuzz/fuzzing.py [--inputs 5000] [--seconds 600] [--seed 0] [--kinds pictures configs] [--keep FOLDER]

Every input must end with exit code 0, 1 or 2 and, if not 0, one message; without a traceback, without a file written or
changed outside `--out`, and within limits of time and memory.
"""

import argparse
import contextlib
import io
import os
import shutil
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

os.environ["OMP_NUM_THREADS"] = "1"  # a process with threads cannot be forked safely
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "agg"

from children import Limits, Outcome, run_in_child
from corpus import EXPLORER, KINDS, make_corpus
from explorer_requests import explorer_command

import steerlens as sl
from steerlens.cli.main import main as steerlens

_LONGEST = 2000
"""Characters of a message."""

_COPIED = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
"""Kinds of files that are kept of a failing input."""


_LARGEST_COPY = 100_000_000
"""Bytes of a file that is kept of a failing input."""


def faults(outcome: Outcome, limits: Limits) -> list[str]:
    """What is wrong with how a command ended, in words."""
    said = [line for line in outcome.err.splitlines() if line.startswith("steerlens: ")]
    # The parser of options draws a box.
    told = bool(said) or "╭─" in outcome.err
    checks = (
        (outcome.hung, f"hangs after {limits.wall:g} s"),
        (not outcome.hung and outcome.code not in (0, 1, 2), f"exit code {outcome.code}"),
        ("Traceback (most recent call last)" in outcome.err, "a traceback"),
        (any("unexpected" in line and "please report" in line for line in said), "an exception that is nobody's"),
        (outcome.code in (1, 2) and not told, "no message"),
        (len(said) > 1, f"{len(said)} messages"),
        (any(len(line) > _LONGEST for line in said), "a message that nobody can read"),
        ("\x1b" in outcome.out + outcome.err, "terminal escapes"),
        (outcome.seconds > limits.seconds, f"{outcome.seconds:.0f} s of processor time"),
        (outcome.memory > limits.memory, f"{outcome.memory / 1e6:.0f} MB"),
    )
    return [words for wrong, words in checks if wrong]


def snapshot(folder: Path, *, without: str = "") -> dict[str, tuple[int, int]]:
    """Size and time of everything in a folder, by path; nothing is followed."""
    found: dict[str, tuple[int, int]] = {}
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not without or Path(place, name) != folder / without]
        for name in names:
            path = Path(place, name)
            if str(path.relative_to(folder)).startswith(without or "\0"):
                continue
            status = path.lstat()
            found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found


class Fuzzer:
    """A folder with the corpus, files that nobody may touch, and one case after another."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.corpus, self.victim = folder / "corpus", folder / "victim"
        self.victim.mkdir()
        (self.victim / "file").write_text("precious")
        for name, variable in (("home", "HOME"), ("cache", "STEERLENS_CACHE")):
            (folder / name).mkdir()
            os.environ[variable] = str(folder / name)
        # Made in this process, which then has imported everything that the cases need.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            make_corpus(self.corpus, steerlens)
            steerlens(["runs", "show", str(self.corpus / "run")])
            self._pair = sl.load(str(self.corpus / "pair"))
        self.before = run_in_child(lambda _: 0, (), self.victim, limits).memory
        self._outside = (self.corpus, self.victim, folder / "home")

    def new_case(self) -> Path:
        """An empty folder for a case, in the place of the one before."""
        case = self.folder / "cases" / "case"
        shutil.rmtree(case.parent, ignore_errors=True)
        case.mkdir(parents=True)
        return case

    def command(self, arguments: Sequence[str]) -> int:
        """Runs the command of a case, in the child."""
        if arguments[0] == EXPLORER:
            return explorer_command(self._pair, arguments[1], int(arguments[2]))
        return steerlens(arguments)

    def try_one(self, kind: str, seed: str) -> tuple[list[str], tuple[str, ...], Outcome]:
        """Runs one case; what is wrong with it, its command, and how it ended."""
        case = self.new_case()
        arguments = KINDS[kind](self.corpus, case, Random(f"{kind} {seed}"))
        places = [(place, "") for place in self._outside] + [(case, "out")]
        before = [snapshot(place, without=out) for place, out in places]
        outcome = run_in_child(self.command, arguments, case, self.limits, self.before)
        wrong = faults(outcome, self.limits)
        if before != [snapshot(place, without=out) for place, out in places]:
            wrong.append("files outside --out were written, changed or removed")
        return wrong, arguments, outcome


def keep_case(case: Path, folder: Path) -> None:
    """Copies the files of a failing input, but not pipes, devices and files with holes, which a copy would fill."""

    def special(parent: str, names: list[str]) -> list[str]:
        found = {name: (Path(parent) / name).lstat() for name in names}
        return [
            name
            for name, status in found.items()
            if stat.S_IFMT(status.st_mode) not in _COPIED or status.st_size > _LARGEST_COPY
        ]

    shutil.copytree(case, folder, symlinks=True, ignore=special)


def main() -> int:
    """Runs the fuzzer; exit code 1 if an input broke the promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=600.0, help="of trying, after the corpus was made")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--keep", type=Path, help="a folder for the inputs that fail")
    options = parser.parse_args()
    tried, failed, codes, slowest = Counter[str](), Counter[str](), Counter[tuple[str, int]](), 0.0
    largest = 0
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), Limits())
        began = time.monotonic()
        for number in range(options.inputs):
            if time.monotonic() - began > options.seconds:
                break
            kind, seed = options.kinds[number % len(options.kinds)], f"{options.seed}.{number}"
            wrong, arguments, outcome = fuzzer.try_one(kind, seed)
            tried[kind] += 1
            codes[kind, outcome.code] += 1
            slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.memory)
            if wrong:
                failed[kind] += 1
                words = (outcome.err.strip().splitlines() or [""])[-1][:300]
                sys.stdout.write(f"FAILS {kind} {seed}: {'; '.join(wrong)}\n  {' '.join(arguments)[:300]}\n  {words}\n")
                sys.stdout.flush()
                if options.keep is not None:
                    keep_case(fuzzer.folder / "cases", options.keep / f"{kind} {seed}")
    for kind in options.kinds:
        ends = ", ".join(f"{codes[kind, code]} x {code}" for code in sorted({code for of, code in codes if of == kind}))
        sys.stdout.write(f"{kind}: {tried[kind]} inputs, {failed[kind]} failed; exit codes {ends}\n")
    sys.stdout.write(
        f"all: {tried.total()} inputs, {failed.total()} failed; at most {slowest:.1f} s of processor time and "
        f"{largest / 1e6:.0f} MB\n"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
