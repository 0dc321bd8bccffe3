"""Message about an interrupted study or profile."""

from pathlib import Path


def kept(folder: Path) -> str:
    """Message about the results that an interrupted study keeps."""
    return f"Finished results are kept in {folder}; run the same command again to resume."
