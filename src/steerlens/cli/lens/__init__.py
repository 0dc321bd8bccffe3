"""`steerlens lens`."""

from steerlens.cli.lens.command import Command, LensSettings

__all__ = ["Command", "LensSettings"]
