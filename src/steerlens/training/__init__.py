"""Training of small encoder-decoder pairs: data, scenes, three stages, evaluation, export.

The rest of the package imports nothing from here, so that the lenses do not need the dependencies of training.
"""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.training.card import write_card
    from steerlens.training.classifier import CLASSIFIER_SETTINGS, train_classifier
    from steerlens.training.classifier_export import export_classifier
    from steerlens.training.decoder import DecoderRecipe, export_decoder, train_decoder
    from steerlens.training.decoder_card import write_decoder_card
    from steerlens.training.domain import Warned, count_warned, held_out_scenes, measure_domain
    from steerlens.training.evaluation import evaluate
    from steerlens.training.export import export_pair, write_manifest
    from steerlens.training.measurement import Evaluation, Measurement
    from steerlens.training.parallel import run_parallel
    from steerlens.training.pipeline import Recipe, open_run, train_pair
    from steerlens.training.stage import Budget, StageRecord
    from steerlens.training.text import embed_texts, load_texts, make_text_table, save_text_table, text_file

__all__ = [
    "CLASSIFIER_SETTINGS",
    "Budget",
    "DecoderRecipe",
    "Evaluation",
    "Measurement",
    "Recipe",
    "StageRecord",
    "Warned",
    "count_warned",
    "embed_texts",
    "evaluate",
    "export_classifier",
    "export_decoder",
    "export_pair",
    "held_out_scenes",
    "load_texts",
    "make_text_table",
    "measure_domain",
    "open_run",
    "run_parallel",
    "save_text_table",
    "text_file",
    "train_classifier",
    "train_decoder",
    "train_pair",
    "write_card",
    "write_decoder_card",
    "write_manifest",
]

__getattr__, __dir__ = lazy_names(__name__)
