"""Scenes: sets of named pictures, and scenes composed of them."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.scenes.compose import (
        BACKGROUNDS,
        PLAIN,
        STRONG,
        Augment,
        Background,
        SceneMaker,
        Scenes,
        colour_matrix,
        place,
        zero_shot_scenes,
    )
    from steerlens.scenes.pictures import (
        HELD_OUT,
        OUTSIDE,
        SIZE,
        TRAIN,
        UNSEEN,
        Concept,
        PictureSet,
        load_pictures,
        load_prepared,
        prepared_folder,
        to_tensor,
    )
    from steerlens.scenes.preparing import StyleCount, count_table, near_duplicates, prepare, split_pictures
    from steerlens.scenes.sources import EMOJI, SOURCES, Source, choose_sources, fetch

__all__ = [
    "BACKGROUNDS",
    "EMOJI",
    "HELD_OUT",
    "OUTSIDE",
    "PLAIN",
    "SIZE",
    "SOURCES",
    "STRONG",
    "TRAIN",
    "UNSEEN",
    "Augment",
    "Background",
    "Concept",
    "PictureSet",
    "SceneMaker",
    "Scenes",
    "Source",
    "StyleCount",
    "choose_sources",
    "colour_matrix",
    "count_table",
    "fetch",
    "load_pictures",
    "load_prepared",
    "near_duplicates",
    "place",
    "prepare",
    "prepared_folder",
    "split_pictures",
    "to_tensor",
    "zero_shot_scenes",
]

__getattr__, __dir__ = lazy_names(__name__)
