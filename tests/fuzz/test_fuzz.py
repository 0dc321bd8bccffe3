"""A short run of the fuzzer, in a process that forks; `make fuzz` runs it for minutes."""

import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import Limits, Outcome, faults


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="runs where /proc tells the size of a process")
def test_mutated_inputs_of_every_kind_end_with_one_message() -> None:
    script = Path(__file__).with_name("fuzzing.py")
    command = [sys.executable, str(script), "--inputs", "90", "--seconds", "12", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all: " in done.stdout


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
