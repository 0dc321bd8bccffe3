"""The folder of what is kept from run to run."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`STEERLENS_CACHE`, or `steerlens` in the user's cache folder (`XDG_CACHE_HOME`, by default `~/.cache`)."""
    if own := os.environ.get("STEERLENS_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rule: a path that is not absolute is ignored.
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "steerlens"
