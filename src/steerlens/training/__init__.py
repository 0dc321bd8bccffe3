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
    from steerlens.training.prepared import keep_to_pictures
    from steerlens.training.sae import SaeRecipe, TrainedSae, finished_sae, train_sae
    from steerlens.training.sae_export import SaeFigures, measure_sae, write_sae
    from steerlens.training.sae_pipeline import SaePictures, SaeRun, folder_of_pictures, run_sae, scenes_of_data
    from steerlens.training.sae_values import ValueOptions, collect_values
    from steerlens.training.stage import Budget, StageRecord
    from steerlens.training.text import embed_texts, load_texts, make_text_table, save_text_table, text_file

__all__ = [
    "CLASSIFIER_SETTINGS",
    "Budget",
    "DecoderRecipe",
    "Evaluation",
    "Measurement",
    "Recipe",
    "SaeFigures",
    "SaePictures",
    "SaeRecipe",
    "SaeRun",
    "StageRecord",
    "TrainedSae",
    "ValueOptions",
    "Warned",
    "collect_values",
    "count_warned",
    "embed_texts",
    "evaluate",
    "export_classifier",
    "export_decoder",
    "export_pair",
    "finished_sae",
    "folder_of_pictures",
    "held_out_scenes",
    "keep_to_pictures",
    "load_texts",
    "make_text_table",
    "measure_domain",
    "measure_sae",
    "open_run",
    "run_parallel",
    "run_sae",
    "save_text_table",
    "scenes_of_data",
    "text_file",
    "train_classifier",
    "train_decoder",
    "train_pair",
    "train_sae",
    "write_card",
    "write_decoder_card",
    "write_manifest",
    "write_sae",
]

__getattr__, __dir__ = lazy_names(__name__)
