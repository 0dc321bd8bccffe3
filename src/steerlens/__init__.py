"""steerlens: see what each part of a Vision Transformer writes into its image embedding, as pictures.

    import steerlens as sl
    pair = sl.load("emoji")
    atlas = sl.look(pair, sl.sample_picture())
    sl.write_report(atlas, "out")

Names are imported when they are first used, so that `import steerlens` is quick.
"""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names
from steerlens._version import __version__

if TYPE_CHECKING:
    from steerlens.atlas import Atlas
    from steerlens.conditioning import Conditioning
    from steerlens.decoders import DecodeOptions, decode
    from steerlens.errors import SteerlensError
    from steerlens.images import Picture, load_picture
    from steerlens.interventions import Add, Mean, Patch, Resample, Scale, Zero
    from steerlens.lenses import (
        DiffusionLens,
        LinearAttribution,
        LogitLens,
        SecondOrder,
        SteeringLens,
        Strength,
        TotalLens,
        steer_and_patch,
    )
    from steerlens.loading import Pair, load, load_encoder
    from steerlens.naming import NamedText, TextDecomposition, omp, omp_rows, text_span
    from steerlens.report import write_report
    from steerlens.runs import load_run
    from steerlens.saes import SparseAutoencoder, load_sae
    from steerlens.scores import cosine_similarity
    from steerlens.sites import Site, all_heads, parse_sites
    from steerlens.sweep.look import look
    from steerlens.trace import Trace
    from steerlens.vocabulary import ClassVocabulary, TextVocabulary
    from steerlens.zoo import sample_picture

__all__ = [
    "Add",
    "Atlas",
    "ClassVocabulary",
    "Conditioning",
    "DecodeOptions",
    "DiffusionLens",
    "LinearAttribution",
    "LogitLens",
    "Mean",
    "NamedText",
    "Pair",
    "Patch",
    "Picture",
    "Resample",
    "Scale",
    "SecondOrder",
    "Site",
    "SparseAutoencoder",
    "SteeringLens",
    "SteerlensError",
    "Strength",
    "TextDecomposition",
    "TextVocabulary",
    "TotalLens",
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
    "load_sae",
    "look",
    "omp",
    "omp_rows",
    "parse_sites",
    "sample_picture",
    "steer_and_patch",
    "text_span",
    "write_report",
]

__getattr__, __dir__ = lazy_names(__name__)
