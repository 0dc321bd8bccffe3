"""Kernel of the studies: bench, targets, ablation, effects, settings, parts, statistics, and the run of a study."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.studies.shared.ablation import (
        ABLATIONS,
        Ablated,
        Ablation,
        ablate,
        attribution,
        by_layer,
        mean_writes,
        signed_effect,
        similarity_with,
        unsigned_effect,
    )
    from steerlens.studies.shared.arguments import StudyArguments, StudySettings
    from steerlens.studies.shared.bench import Bench, make_bench, require_embeddings, with_steps
    from steerlens.studies.shared.effects import Effect, all_effects
    from steerlens.studies.shared.folder import StudyFolder, check_folder, open_study
    from steerlens.studies.shared.inputs import (
        ModelLoader,
        StudyModels,
        checked_pair,
        load_judge,
        load_models,
        load_study_pair,
        load_subjects,
    )
    from steerlens.studies.shared.measurements import PicturePart, PictureTables
    from steerlens.studies.shared.neighbours import along_change, nearest, only_near, opposite
    from steerlens.studies.shared.parts import Part, TensorName, TensorNames
    from steerlens.studies.shared.planned import PlannedDecoder, PlannedEncoder, PlannedTexts
    from steerlens.studies.shared.records import Key, Record, StudySummary
    from steerlens.studies.shared.run import Experiment, Output, run_experiment
    from steerlens.studies.shared.scenes import draw_scenes, open_pictures, scene_subjects
    from steerlens.studies.shared.settings import LensSetting, Reference, lens_embeddings, reference_of
    from steerlens.studies.shared.stats import (
        Estimate,
        correlation_estimate,
        difference_estimate,
        mean_estimate,
        spearman,
    )
    from steerlens.studies.shared.subjects import Subject, SubjectSet, concept_of, folder_subjects, image_hash
    from steerlens.studies.shared.typicality import Typicality, fit_typicality
    from steerlens.studies.shared.undecoded import is_undecoded
    from steerlens.studies.shared.work import Work, recorded_passes, single_passes

__all__ = [
    "ABLATIONS",
    "Ablated",
    "Ablation",
    "Bench",
    "Effect",
    "Estimate",
    "Experiment",
    "Key",
    "LensSetting",
    "ModelLoader",
    "Output",
    "Part",
    "PicturePart",
    "PictureTables",
    "PlannedDecoder",
    "PlannedEncoder",
    "PlannedTexts",
    "Record",
    "Reference",
    "StudyArguments",
    "StudyFolder",
    "StudyModels",
    "StudySettings",
    "StudySummary",
    "Subject",
    "SubjectSet",
    "TensorName",
    "TensorNames",
    "Typicality",
    "Work",
    "ablate",
    "all_effects",
    "along_change",
    "attribution",
    "by_layer",
    "check_folder",
    "checked_pair",
    "concept_of",
    "correlation_estimate",
    "difference_estimate",
    "draw_scenes",
    "fit_typicality",
    "folder_subjects",
    "image_hash",
    "is_undecoded",
    "lens_embeddings",
    "load_judge",
    "load_models",
    "load_study_pair",
    "load_subjects",
    "make_bench",
    "mean_estimate",
    "mean_writes",
    "nearest",
    "only_near",
    "open_pictures",
    "open_study",
    "opposite",
    "recorded_passes",
    "reference_of",
    "require_embeddings",
    "run_experiment",
    "scene_subjects",
    "signed_effect",
    "similarity_with",
    "single_passes",
    "spearman",
    "unsigned_effect",
    "with_steps",
]

__getattr__, __dir__ = lazy_names(__name__)
