"""Numbers on the command line that no run could hold: refused before anything is loaded."""

from pathlib import Path

import pytest
from commands import steerlens

import steerlens as package

PICTURE = Path(package.__file__).parent / "zoo" / "sample.png"


@pytest.mark.parametrize(
    "options",
    [
        ("--seeds", 10**9),
        ("--steps", 10**9),
        ("--controls", 10**9),
        ("--labels", 10**9),
        ("--batch-size", 10**9),
        ("--seeds", 5000, "--controls", 5000),
        ("--sites", "head.0-999999999.*"),
        ("--decode", f"top:{10**9}", "--seeds", 10**12),
        ("--region", "patches=0-999999,0-999999", "--seeds", 10**30),
    ],
)
def test_numbers_without_bound_are_refused(options: tuple[object, ...]) -> None:
    done = steerlens("lens", PICTURE, "--dry-run", *options)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and len(done.stderr) < 400, done.stderr
    assert "STEERLENS_LIMIT_" in done.stderr or "the model has" in done.stderr


def test_the_seed_itself_may_be_large() -> None:
    assert steerlens("lens", PICTURE, "--dry-run", "--seed", 10**15).returncode == 0


def test_a_long_value_is_not_told_in_full() -> None:
    done = steerlens("lens", PICTURE, "--dry-run", "--model", "x" * 100_000, "--strength", "y" * 100_000)
    assert done.returncode == 2 and len(done.stderr) < 2000
