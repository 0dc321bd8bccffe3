"""What `steerlens lens --dry-run` prints: cells, and about how much time, memory and disk they would take."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steerlens.cli.lens import LensSettings
    from steerlens.images import Picture


def dry_run(settings: "LensSettings", pictures: "list[Picture]", folder: Path) -> int:
    """Plans without loading weights, prices the plan, prints it, and returns the exit code."""
    return 0
