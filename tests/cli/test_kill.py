"""A sweep in real processes survives kill -9, a full disk, a second process, and SIGTERM."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from killing import Sweep, wait_for

from steerlens.cli.main import main
from steerlens.runs.reader import part_files
from steerlens.runs.store import load_run
from steerlens.runs.summary import run_summary

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return Sweep.prepare(tmp_path_factory.mktemp("sweep"), pictures=2)


def test_a_sweep_killed_three_times_equals_one_that_nothing_disturbed(sweep: Sweep, tmp_path: Path) -> None:
    rng = random.Random(0)
    for number in range(5):  # on a busy machine, a sweep may finish before the third kill
        out = tmp_path / f"run-{number}"
        if all(sweep.kill(out, rng) for _ in range(3)):
            break
    else:
        pytest.fail("no sweep was killed three times before it finished")
    assert not run_summary(out).complete
    assert sweep.finish(out) == 0
    sweep.check(out)


def test_a_second_process_is_refused_and_stopping_loses_nothing(
    sweep: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    for sent, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process, before = sweep.start(out), len(part_files(out))
        wait_for(process, lambda before=before: len(part_files(out)) > before)
        process.send_signal(signal.SIGSTOP)  # so that it does not finish in the meantime
        assert sweep.finish(out) == 1
        assert "another process is writing" in capsys.readouterr().err
        assert run_summary(out).being_written
        process.send_signal(sent)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=300)
        assert process.returncode == code, said
        assert (
            said
            == f"steerlens: interrupted. Finished results are kept in {out}; run the same command again to resume.\n"
        )
        assert len(load_run(out).finished) >= 3 * (before + 1)
    assert sweep.finish(out) == 0
    sweep.check(out)


@pytest.fixture
def small_disk(tmp_path: Path, missing: Callable[[str], NoReturn]) -> Iterator[Path]:
    """A file system of 30 MB, in memory."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a file system of its own can be mounted by root on Linux alone: run as root")
    place = tmp_path / "disk"
    place.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(place)]
    mounted = subprocess.run(options, capture_output=True, text=True, check=False)
    if mounted.returncode:
        missing(f"{mounted.stderr.strip()}: run where root may mount, in a container with --cap-add SYS_ADMIN")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_fills_up_in_mid_sweep_is_told_and_the_run_goes_on(
    sweep: Sweep, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, filler = small_disk / "run", small_disk / "filler"
    free = os.statvfs(small_disk)
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - 100_000))
    done = subprocess.run(
        [sys.executable, "-m", "steerlens.cli.main", *sweep.command(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("steerlens: no space left to write")
    assert "free some space and run the same command again" in done.stderr
    assert done.stderr.count("\n") == 1
    kept = load_run(out)
    assert 0 < len(kept.finished) < len(kept.plan)
    assert main(["runs", "show", str(out)]) == 0
    assert "not complete" in capsys.readouterr().out
    filler.unlink()
    assert sweep.finish(out) == 0
    sweep.check(out)
