"""The command of a study as its page prints it: what decides something, and nothing of where it was run."""

from pathlib import Path

from steerlens.cli.study.command_line import command_line
from steerlens.studies.decoder.arguments import DecoderArguments
from steerlens.studies.importance.arguments import ImportanceArguments
from steerlens.studies.overlay.arguments import OverlayArguments
from steerlens.studies.shared.arguments import StudySettings

HOME = Path("/home/someone")


def test_options_that_decide_are_printed_and_private_paths_are_not() -> None:
    settings = StudySettings(model=str(HOME / "my pair"), data=HOME / "art", device="cuda", json=True, steps=4)
    found = command_line(
        "importance", ImportanceArguments(HOME / "out", settings, count=100, judge=str(HOME / "judge"))
    )
    assert found.startswith("steerlens study importance --model 'my pair' --data DATA --steps 4 --count 100 ")
    assert "--judge judge" in found and found.endswith("--out studies/importance")
    assert "someone" not in found and "cuda" not in found and "--json" not in found
    # Sizes are said even where they are the default; a size that follows the folder is not.
    assert "--seeds 2" in found and "--choose" not in found
    assert "extras" not in found and "--no-extras " in command_line(
        "importance", ImportanceArguments(HOME / "o", extras=False)
    )


def test_tuples_and_folders_are_words_of_their_own() -> None:
    overlay = OverlayArguments(
        HOME / "out", bases=HOME / "a", overlays=HOME / "b", opacity=(0.25, 1.0), place=(0.5, 0.1)
    )
    words = command_line("overlay", overlay)
    assert "--bases BASES --overlays OVERLAYS --count 24 --choose 4 --seeds 1" in words
    assert "--place 0.5 0.1" in words and "--opacity 0.25 1" in words and "--size" not in words
    decoder = DecoderArguments(HOME / "out", sweep_intervals=((0.0, 0.5), (0.2, 0.8)), heads=8)
    assert "--heads 8 --seeds 4 --sweep-intervals 0 0.5 0.2 0.8" in command_line("decoder", decoder)
