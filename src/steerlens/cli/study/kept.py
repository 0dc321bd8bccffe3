"""The message on a study or profile that was stopped."""

from pathlib import Path


def kept(folder: Path) -> str:
    """Tells the user what a stopped study leaves behind."""
    return f"What was finished is kept in {folder}; the same command goes on from there."
