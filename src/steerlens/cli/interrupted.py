"""Message about an interrupted command whose finished results can be resumed."""

from pathlib import Path


def kept(folder: Path) -> str:
    """Message that finished results are in a folder, and how to resume."""
    return f"Finished results are kept in {folder}; run the same command again to resume."
