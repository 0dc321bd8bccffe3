"""The command `steerlens lens` and its options."""

from steerlens.cli.lens.command import Command
from steerlens.cli.lens.settings import LensSettings

__all__ = ["Command", "LensSettings"]
