"""Disk space, timing and rounding for the estimates of `--dry-run`."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from steerlens.cli.console import plain_bytes

if TYPE_CHECKING:
    from steerlens.decoders import Decoder
    from steerlens.encoders import Encoder

_WARM_SECONDS = 20.0
"""Longest first run that is timed again: the first one also pays for starting up."""

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


def size_words(number: float) -> str:
    """A number of bytes without false precision."""
    return plain_bytes(rounded(number))


def time_words(seconds: float) -> str:
    """A duration without false precision."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{rounded(seconds / length):g} {unit}"
    return f"{rounded(max(seconds, 1)):.0f} s"


def timed(run: Callable[[], object]) -> float:
    """Seconds that a call takes; of the second call, unless the first takes very long."""
    seconds = math.inf
    for _ in range(2):
        started = time.perf_counter()
        run()
        seconds = time.perf_counter() - started
        if seconds > _WARM_SECONDS:
            break
    return seconds


def weight_bytes(*parts: "Encoder | Decoder") -> int:
    """Bytes of the weights of loaded models; modules that they share count once."""
    import torch

    values = [value for part in parts for value in vars(part).values()]
    modules = {id(value): value for value in values if isinstance(value, torch.nn.Module)}
    return sum(tensor.nbytes for module in modules.values() for tensor in module.parameters())
