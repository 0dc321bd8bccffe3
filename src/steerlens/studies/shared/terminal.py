"""Lines with which every study ends its results on the terminal."""

from pathlib import Path


def closing_lines(folder: Path, *warnings: str) -> list[str]:
    """Warnings that are not empty, and the folder of the study's files."""
    return [*(warning for warning in warnings if warning), f"figures, table and summary: {folder}"]
