"""Training of a small encoder-decoder pair: data, scenes, three stages, evaluation, export.

Nothing here is imported by the rest of the package, so that looking through a lens never needs what training needs.
"""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.training.card import write_card
    from steerlens.training.classifier_export import export_classifier
    from steerlens.training.export import export_pair, write_manifest
    from steerlens.training.parallel import run_parallel
    from steerlens.training.pipeline import Recipe, open_run, train_pair
    from steerlens.training.stage import Budget, Progress
    from steerlens.training.text import embed_texts, load_texts, make_text_table, save_text_table, text_file

__all__ = [
    "Budget",
    "Progress",
    "Recipe",
    "embed_texts",
    "export_classifier",
    "export_pair",
    "load_texts",
    "make_text_table",
    "open_run",
    "run_parallel",
    "save_text_table",
    "text_file",
    "train_pair",
    "write_card",
    "write_manifest",
]

__getattr__, __dir__ = lazy_names(__name__)
