"""Sweeps: what to look at, planned, computed cell by cell, and stored."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.sweep.cache_contents import cache_folder, cached_models, clear_cache, foreign_files, size_limit
    from steerlens.sweep.engine import FinishedCells, run
    from steerlens.sweep.look import (
        Engine,
        LookOptions,
        decode_options,
        default_strength,
        look_in,
        make_job,
        plan_of,
        ray_engine,
    )
    from steerlens.sweep.selection import Choice

__all__ = [
    "Choice",
    "Engine",
    "FinishedCells",
    "LookOptions",
    "cache_folder",
    "cached_models",
    "clear_cache",
    "decode_options",
    "default_strength",
    "foreign_files",
    "look_in",
    "make_job",
    "plan_of",
    "ray_engine",
    "run",
    "size_limit",
]

__getattr__, __dir__ = lazy_names(__name__)
