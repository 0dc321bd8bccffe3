"""The zoo: cards of named pairs, and locating and opening encoders, decoders and pairs for `steerlens.loading`."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names
from steerlens.zoo.cards import Card, Repository, card, cards

if TYPE_CHECKING:
    from steerlens.zoo.architecture import on_meta, package_configs
    from steerlens.zoo.cost import Cost, UncountedError, cost_of, estimate_seconds, probe_flops
    from steerlens.zoo.decoder_families import families, family_of, unbuildable
    from steerlens.zoo.decoder_opening import default_options, negative_for, open_decoder
    from steerlens.zoo.encoder_locating import (
        LocatedEncoder,
        inner_folder,
        locate_encoder,
        locate_encoder_in,
        locate_lone_encoder,
        processor_folder,
    )
    from steerlens.zoo.encoder_opening import load_encoder, open_encoder
    from steerlens.zoo.hub import cached_snapshot
    from steerlens.zoo.indexes import IndexPair, found_index, index_folder, open_index, requested_index
    from steerlens.zoo.joint import encoder_inside
    from steerlens.zoo.locating import ENCODER_FILES, LocatedPair, card_files, locate_pair
    from steerlens.zoo.manifest import build_manifest, differences, read_manifest, shapes_of, write_manifest
    from steerlens.zoo.pair import Pair
    from steerlens.zoo.pair_opening import open_pair
    from steerlens.zoo.probe import Fit, Probe, load_probe, make_probe, measure_fit
    from steerlens.zoo.provenance import (
        PartProvenance,
        Provenance,
        decoder_provenance,
        encoder_provenance,
        file_hashes,
        library_versions,
        trained_weights,
    )
    from steerlens.zoo.recommending import Recommendation, recommendations
    from steerlens.zoo.reference import (
        DECODED,
        REFERENCE,
        find_reference,
        measure_reference,
        models_for_photographs,
        save_reference,
        seen_part,
        user_reference,
    )
    from steerlens.zoo.registry import Group, adapter, adapter_for, registered
    from steerlens.zoo.sample import is_sample, named_picture, sample_picture
    from steerlens.zoo.sources import card_of, has_no_decoder, is_folder
    from steerlens.zoo.text import (
        SENTENCE_PACKAGE,
        SENTENCE_SIZE,
        CLIPText,
        MappedText,
        SentenceEncoder,
        direction_of,
        sentence_folder,
    )
    from steerlens.zoo.vocabularies import (
        TEXT_MAP,
        check_text,
        check_vocabulary_files,
        class_vocabulary,
        load_text_map,
        load_vocabulary,
        read_vocabulary,
    )

__all__ = [
    "DECODED",
    "ENCODER_FILES",
    "REFERENCE",
    "SENTENCE_PACKAGE",
    "SENTENCE_SIZE",
    "TEXT_MAP",
    "CLIPText",
    "Card",
    "Cost",
    "Fit",
    "Group",
    "IndexPair",
    "LocatedEncoder",
    "LocatedPair",
    "MappedText",
    "Pair",
    "PartProvenance",
    "Probe",
    "Provenance",
    "Recommendation",
    "Repository",
    "SentenceEncoder",
    "UncountedError",
    "adapter",
    "adapter_for",
    "build_manifest",
    "cached_snapshot",
    "card",
    "card_files",
    "card_of",
    "cards",
    "check_text",
    "check_vocabulary_files",
    "class_vocabulary",
    "cost_of",
    "decoder_provenance",
    "default_options",
    "differences",
    "direction_of",
    "encoder_inside",
    "encoder_provenance",
    "estimate_seconds",
    "families",
    "family_of",
    "file_hashes",
    "find_reference",
    "found_index",
    "has_no_decoder",
    "index_folder",
    "inner_folder",
    "is_folder",
    "is_sample",
    "library_versions",
    "load_encoder",
    "load_probe",
    "load_text_map",
    "load_vocabulary",
    "locate_encoder",
    "locate_encoder_in",
    "locate_lone_encoder",
    "locate_pair",
    "make_probe",
    "measure_fit",
    "measure_reference",
    "models_for_photographs",
    "named_picture",
    "negative_for",
    "on_meta",
    "open_decoder",
    "open_encoder",
    "open_index",
    "open_pair",
    "package_configs",
    "probe_flops",
    "processor_folder",
    "read_manifest",
    "read_vocabulary",
    "recommendations",
    "registered",
    "requested_index",
    "sample_picture",
    "save_reference",
    "seen_part",
    "sentence_folder",
    "shapes_of",
    "trained_weights",
    "unbuildable",
    "user_reference",
    "write_manifest",
]

__getattr__, __dir__ = lazy_names(__name__)
