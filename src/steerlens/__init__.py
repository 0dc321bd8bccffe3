"""steerlens: see what each part of a Vision Transformer writes into its image embedding, as pictures.

    import steerlens as sl
    pair = sl.load("emoji")
    atlas = sl.look(pair, "cup.png")
    sl.write_report(atlas, "out")

Names are imported when they are first used, so that `import steerlens` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from steerlens._version import __version__

if TYPE_CHECKING:
    from steerlens.atlas.atlas import Atlas
    from steerlens.conditioning import Conditioning
    from steerlens.decoders.base import DecodeOptions, decode
    from steerlens.errors import SteerlensError
    from steerlens.images import Picture, load_picture
    from steerlens.interventions import Add, Mean, Patch, Resample, Scale, Zero
    from steerlens.lenses.diffusion import DiffusionLens
    from steerlens.lenses.logit import LogitLens
    from steerlens.lenses.steering import SteeringLens, steer_and_patch
    from steerlens.lenses.strength import Strength
    from steerlens.loading import Pair, load, load_encoder
    from steerlens.report.html import write_report
    from steerlens.runs.store import load_run
    from steerlens.scores import cosine_similarity
    from steerlens.sites import Site, all_heads, parse_sites
    from steerlens.sweep.look import look
    from steerlens.trace import Trace
    from steerlens.vocabulary import ClassVocabulary, TextVocabulary
    from steerlens.zoo import sample_picture

_HOMES = {
    "steerlens.conditioning": ("Conditioning",),
    "steerlens.decoders.base": ("DecodeOptions", "decode"),
    "steerlens.errors": ("SteerlensError",),
    "steerlens.images": ("Picture", "load_picture"),
    "steerlens.interventions": ("Add", "Mean", "Patch", "Resample", "Scale", "Zero"),
    "steerlens.lenses.diffusion": ("DiffusionLens",),
    "steerlens.lenses.logit": ("LogitLens",),
    "steerlens.lenses.steering": ("SteeringLens", "steer_and_patch"),
    "steerlens.lenses.strength": ("Strength",),
    "steerlens.report.html": ("write_report",),
    "steerlens.scores": ("cosine_similarity",),
    "steerlens.sites": ("Site", "all_heads", "parse_sites"),
    "steerlens.atlas.atlas": ("Atlas",),
    "steerlens.sweep.look": ("look",),
    "steerlens.runs.store": ("load_run",),
    "steerlens.trace": ("Trace",),
    "steerlens.vocabulary": ("ClassVocabulary", "TextVocabulary"),
    "steerlens.zoo": ("sample_picture",),
    "steerlens.loading": ("Pair", "load", "load_encoder"),
}

__all__ = [
    "Add",
    "Atlas",
    "ClassVocabulary",
    "Conditioning",
    "DecodeOptions",
    "DiffusionLens",
    "LogitLens",
    "Mean",
    "Pair",
    "Patch",
    "Picture",
    "Resample",
    "Scale",
    "Site",
    "SteeringLens",
    "SteerlensError",
    "Strength",
    "TextVocabulary",
    "Trace",
    "Zero",
    "__version__",
    "all_heads",
    "cosine_similarity",
    "decode",
    "load",
    "load_encoder",
    "load_picture",
    "load_run",
    "look",
    "parse_sites",
    "sample_picture",
    "steer_and_patch",
    "write_report",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'steerlens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
