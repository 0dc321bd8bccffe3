"""Sparse autoencoders: reading them, splitting values into features, fidelity."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.saes.activations import Activation, BatchTopK, Gated, JumpReLU, ReLU, TopK
    from steerlens.saes.fidelity_meter import Fidelity, FidelityMeter, fidelity
    from steerlens.saes.interventions import ChangeFeatures, change_features, feature_interventions
    from steerlens.saes.load import load_sae, parse_activation
    from steerlens.saes.normalisation import Normalisation
    from steerlens.saes.sae import EMBEDDING, SparseAutoencoder, Split, TrainedOn
    from steerlens.saes.traced import decoder_rows, value_at

__all__ = [
    "EMBEDDING",
    "Activation",
    "BatchTopK",
    "ChangeFeatures",
    "Fidelity",
    "FidelityMeter",
    "Gated",
    "JumpReLU",
    "Normalisation",
    "ReLU",
    "SparseAutoencoder",
    "Split",
    "TopK",
    "TrainedOn",
    "change_features",
    "decoder_rows",
    "feature_interventions",
    "fidelity",
    "load_sae",
    "parse_activation",
    "value_at",
]

__getattr__, __dir__ = lazy_names(__name__)
