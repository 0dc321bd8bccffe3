"""What estimates of `--dry-run` share: disk space, and numbers without false precision."""

import math
from pathlib import Path

_PNG_BYTES_PER_PIXEL = 2.0
"""Approximate bytes per pixel of a decoded picture as PNG; noise would take 3, flat art less than 1."""

_BYTES_BESIDE_A_PICTURE = 12_000
"""Approximate bytes of a picture's embeddings, numbers and copy in the report."""


def disk_bytes(decoded: int, size: tuple[int, int]) -> int:
    """Approximate bytes on the disk of a run's decoded pictures."""
    return int(decoded * (_PNG_BYTES_PER_PIXEL * size[0] * size[1] + _BYTES_BESIDE_A_PICTURE))


def existing(folder: Path) -> Path:
    """The folder itself, or the first folder above it that exists."""
    folder = folder.absolute()
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def rounded(number: float) -> float:
    """Rounds an estimate to its first digit, or to the first two if they are below 20."""
    if number <= 0 or not math.isfinite(number):
        return number
    power = 10.0 ** math.floor(math.log10(number))
    step = power / 10 if number / power < 2 else power
    return round(number / step) * step
