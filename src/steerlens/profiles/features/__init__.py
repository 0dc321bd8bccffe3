"""Dashboards of the features of a sparse autoencoder, one a feature, and a page that searches and sorts them."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.profiles.features.effects import FeatureReader
    from steerlens.profiles.features.options import FeatureOptions
    from steerlens.profiles.features.page import write_feature_page
    from steerlens.profiles.features.study import FeatureProfile, feature_identity, profile_features, texts_of
    from steerlens.profiles.features.work import FeatureWork, feature_work

__all__ = [
    "FeatureOptions",
    "FeatureProfile",
    "FeatureReader",
    "FeatureWork",
    "feature_identity",
    "feature_work",
    "profile_features",
    "texts_of",
    "write_feature_page",
]

__getattr__, __dir__ = lazy_names(__name__)
