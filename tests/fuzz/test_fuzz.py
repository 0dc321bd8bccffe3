"""A short run of the fuzzer, in a process that forks; `make fuzz` runs it for minutes."""

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import torch
from fuzzing import Limits, Outcome, faults
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutate_file
from safetensors.torch import save_file

from steerlens.atlas import Atlas
from steerlens.errors import SteerlensError
from steerlens.lenses.components import load_directions
from steerlens.runs.hashes import HASHES
from steerlens.runs.manifest import plan_to_json, spec_to_json
from steerlens.runs.reader import part_cells, stored_reading
from steerlens.runs.store import load_run, open_run
from steerlens.testing.atlases import fake_atlas


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="runs where /proc tells the size of a process")
def test_mutated_inputs_of_every_kind_end_with_one_message() -> None:
    script = Path(__file__).with_name("fuzzing.py")
    command = [sys.executable, str(script), "--inputs", "52", "--seconds", "10", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all: " in done.stdout


def run_with_results(folder: Path, atlas: Atlas) -> Path:
    """Writes an atlas as a finished run."""
    specs = {"encoder": spec_to_json(atlas.encoder), "decoder": spec_to_json(atlas.decoder)}
    inputs = {reading.id: {"name": reading.picture.name} for reading in atlas.readings}
    with open_run(folder, {**specs, "plan": plan_to_json(atlas.plan), "inputs": inputs, "directions": {}}) as writer:
        for reading in atlas.readings:
            writer.add_reading(reading)
        writer.add_cells(list(atlas.results))
        writer.finish()
    return folder


def told(read: Callable[[], object]) -> None:
    """Reads something that may be damaged; anything but an error of steerlens goes through."""
    with contextlib.suppress(SteerlensError, MemoryError):  # damage can ask for any amount; commands tell of it
        read()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Valid files of the kinds that are read in this process, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("valid")
    written = run_with_results(folder / "run", fake_atlas(sites="head.0.0", controls=0))
    (written / HASHES).unlink()
    save_file({"one": torch.arange(16.0), "two": torch.eye(16)[:2]}, folder / "vector.safetensors")
    part = next(written.glob("cells/*.parquet"))
    reading = next(path for path in written.glob("inputs/*.parquet") if "labels" not in path.name)
    return {
        "part": part,
        "reading": reading,
        "manifest": written / "manifest.json",
        "vector": folder / "vector.safetensors",
    }


@given(rng=st.randoms(use_true_random=False), kind=st.sampled_from(["part", "reading", "manifest", "vector"]))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutations_that_hypothesis_draws_end_with_our_own_errors(
    rng: Random, kind: str, files: dict[str, Path]
) -> None:
    """The mutators of the fuzzer, drawn by hypothesis, which looks for a small mutation that breaks the promise."""
    readers: dict[str, Callable[[Path], object]] = {
        "part": lambda path: [result.image for result in part_cells(path)],
        "reading": lambda path: stored_reading(path).picture.image,
        "manifest": lambda path: load_run(path.parent),
        "vector": lambda path: load_directions(path, 16),
    }
    path = files[kind]
    whole = path.read_bytes()
    try:
        mutate_file(path, rng, replace=0)
        told(lambda: readers[kind](path))
    finally:
        path.write_bytes(whole)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="runs where /proc tells the size of a process")
def test_inputs_that_claim_to_be_enormous_are_refused_quickly() -> None:
    script = Path(__file__).with_name("hostile.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "28 refused, 2 read, 0 failed" in done.stdout


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome(0, 1, 0, "", "", False), []),
        (Outcome(2, 1, 0, "", "steerlens: no such file.\n", False), []),
        (Outcome(1, 1, 0, "", "", False), ["no message"]),
        (Outcome(1, 1, 0, "", "steerlens: a.\nsteerlens: b.\n", False), ["2 messages"]),
        (Outcome(-11, 1, 0, "", "", False), ["exit code -11"]),
        (Outcome(-9, 1, 0, "", "", True), ["hangs after 90 s"]),
        (Outcome(0, 99, 0, "", "", False), ["99 s of processor time"]),
        (Outcome(0, 1, 5 * 10**9, "", "", False), ["5000 MB"]),
        (Outcome(1, 1, 0, "", "Traceback (most recent call last):\nsteerlens: x\n", False), ["a traceback"]),
        (Outcome(0, 1, 0, "\x1b[31m", "", False), ["terminal escapes"]),
        (
            Outcome(1, 1, 0, "", "steerlens: unexpected KeyError: 'a'. Please report: please report it.\n", False),
            ["an exception that is nobody's"],
        ),
    ],
)
def test_the_fuzzer_sees_every_fault(outcome: Outcome, words: list[str]) -> None:
    assert faults(outcome, Limits()) == words
