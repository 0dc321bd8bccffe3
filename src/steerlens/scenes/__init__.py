"""Scenes: sets of named pictures, and scenes composed of them."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.scenes.compose import BACKGROUNDS, PLAIN, STRONG, Augment, SceneMaker, Scenes, zero_shot_scenes
    from steerlens.scenes.pictures import HELD_OUT, TRAIN, UNSEEN, PictureSet

__all__ = [
    "BACKGROUNDS",
    "HELD_OUT",
    "PLAIN",
    "STRONG",
    "TRAIN",
    "UNSEEN",
    "Augment",
    "PictureSet",
    "SceneMaker",
    "Scenes",
    "zero_shot_scenes",
]

__getattr__, __dir__ = lazy_names(__name__)
