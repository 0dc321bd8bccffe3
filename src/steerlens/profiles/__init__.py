"""Profiles: descriptions of attention heads over many pictures, by numbers, pictures and texts, with a page."""

from typing import TYPE_CHECKING

from steerlens._lazy import lazy_names

if TYPE_CHECKING:
    from steerlens.atlas import Faithfulness, TextScore
    from steerlens.profiles.cards import checked_bank, write_head_cards
    from steerlens.profiles.faithfulness import measured_faithfulness
    from steerlens.profiles.options import ProfileOptions, heads_of
    from steerlens.profiles.page import profile_page, write_profile_page
    from steerlens.profiles.pictures import ProfilePicture, ProfilePictures, folder_pictures, scene_pictures
    from steerlens.profiles.study import check_profile, profile_heads, profile_identity, profile_work
    from steerlens.profiles.summary import Average, DecodedPicture, HeadProfile, Profile, TopPicture

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
    "check_profile",
    "checked_bank",
    "folder_pictures",
    "heads_of",
    "measured_faithfulness",
    "profile_heads",
    "profile_identity",
    "profile_page",
    "profile_work",
    "scene_pictures",
    "write_head_cards",
    "write_profile_page",
]

__getattr__, __dir__ = lazy_names(__name__)
