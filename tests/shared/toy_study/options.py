"""Command-line options of the brightness study."""

from dataclasses import dataclass

from steerlens.studies.shared.arguments import StudyArguments


@dataclass(frozen=True)
class BrightnessArguments(StudyArguments):
    """Does an embedding survive a change of brightness?"""

    count: int = 4
    """Pictures."""

    factor: float = 0.5
    """Of the brightness."""
