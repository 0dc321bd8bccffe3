"""Sweeps: plan which pictures to decode, compute them cell by cell, and store them."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.storage import cache_folder
    from steerlens.sweep.ablations import ablation_effects_by_layer
    from steerlens.sweep.cache_contents import cached_models, clear_cache, foreign_files, size_limit
    from steerlens.sweep.cells import SteeredCell, TracedPicture
    from steerlens.sweep.effects import unit_effects
    from steerlens.sweep.engine import FinishedCells, batch_size, decode_cells, run
    from steerlens.sweep.fits import FitMeter, SaeFit
    from steerlens.sweep.job import Job, Target
    from steerlens.sweep.look import Engine, facts_beside_identity, look_in, ray_engine
    from steerlens.sweep.names import check_names, check_names_of
    from steerlens.sweep.options import DecodingOptions, LensOptions, LookOptions, SiteOptions
    from steerlens.sweep.prepare import (
        default_strength,
        expected_plan,
        make_job,
        picture_id,
        plan_of,
        vector_place,
    )
    from steerlens.sweep.real_passes import encoder_passes
    from steerlens.sweep.selection import Selection
    from steerlens.sweep.steered import read_picture, trace_picture, unfinished_cells
    from steerlens.sweep.survey import with_saes
    from steerlens.sweep.targets import read_target, resolve_target
    from steerlens.sweep.unused import refuse_tokens, refuse_unused_in_decoding

__all__ = [
    "DecodingOptions",
    "Engine",
    "FinishedCells",
    "FitMeter",
    "Job",
    "LensOptions",
    "LookOptions",
    "SaeFit",
    "Selection",
    "SiteOptions",
    "SteeredCell",
    "Target",
    "TracedPicture",
    "ablation_effects_by_layer",
    "batch_size",
    "cache_folder",
    "cached_models",
    "check_names",
    "check_names_of",
    "clear_cache",
    "decode_cells",
    "default_strength",
    "encoder_passes",
    "expected_plan",
    "facts_beside_identity",
    "foreign_files",
    "look_in",
    "make_job",
    "picture_id",
    "plan_of",
    "ray_engine",
    "read_picture",
    "read_target",
    "refuse_tokens",
    "refuse_unused_in_decoding",
    "resolve_target",
    "run",
    "size_limit",
    "trace_picture",
    "unfinished_cells",
    "unit_effects",
    "vector_place",
    "with_saes",
]

__getattr__, __dir__ = lazy_names(__name__)
