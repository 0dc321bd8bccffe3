"""Dashboards of the features of a sparse autoencoder, one a feature, and a page that searches and sorts them."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.profiles.features.effects import FeatureReader
    from steerlens.profiles.features.options import FeatureOptions
    from steerlens.profiles.features.page import write_feature_page
    from steerlens.profiles.features.study import FeatureProfile, profile_features

__all__ = ["FeatureOptions", "FeatureProfile", "FeatureReader", "profile_features", "write_feature_page"]

__getattr__, __dir__ = lazy_names(__name__)
