"""Profiles: descriptions of attention heads over many pictures, by numbers, pictures and texts, with a page."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.profiles.faithfulness import Faithfulness, measured_faithfulness
    from steerlens.profiles.options import ProfileOptions, heads_of
    from steerlens.profiles.page import profile_page, write_profile_page
    from steerlens.profiles.pictures import ProfilePicture, ProfilePictures, folder_pictures, scene_pictures
    from steerlens.profiles.study import profile_heads
    from steerlens.profiles.summary import Average, DecodedPicture, HeadProfile, Profile, TopPicture
    from steerlens.profiles.texts import TextScore

__all__ = [
    "Average",
    "DecodedPicture",
    "Faithfulness",
    "HeadProfile",
    "Profile",
    "ProfileOptions",
    "ProfilePicture",
    "ProfilePictures",
    "TextScore",
    "TopPicture",
    "folder_pictures",
    "heads_of",
    "measured_faithfulness",
    "profile_heads",
    "profile_page",
    "scene_pictures",
    "write_profile_page",
]

__getattr__, __dir__ = lazy_names(__name__)
