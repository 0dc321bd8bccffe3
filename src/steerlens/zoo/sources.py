"""Sources of models: names of cards, folders, ids of the hub."""

import re
from pathlib import Path

from steerlens.encoders import is_open_clip_folder
from steerlens.errors import UsageError
from steerlens.zoo.cards import Card, card, cards, folder_card
from steerlens.zoo.decoder_families import holds_pipeline
from steerlens.zoo.library_names import is_library_name

OPEN_CLIP_HUB = "hf-hub:"
"""open_clip's prefix of hub ids."""


def card_of(source: str | Path) -> Card | None:
    """Returns the card of a name, or the card in a folder; None for a folder without one.

    Raises:
        UsageError: if it is neither.
        ModelError: if the folder's card is broken.
    """
    if isinstance(source, str) and source in cards():
        return cards()[source]
    if is_folder(source):
        return folder_card(Path(source))
    if isinstance(source, str) and source.strip() and "/" not in source and "\\" not in source:
        return card(source)  # raises, and suggests a similar name
    if not str(source).strip():
        raise UsageError("a model needs a name (`steerlens models` lists all), or the path of a folder.")
    hint = hint_for_encoder(str(source)) if has_no_decoder(source) else ""
    raise UsageError(
        f"there is no folder {shortened(source)}; `steerlens models` lists the models known by name.{hint}"
    )


def has_no_decoder(source: str | Path) -> bool:
    """True if a source is only an encoder: a folder with an encoder and no pair, or the form of a hub id."""
    if not is_folder(source):
        text = str(source)
        return text not in cards() and (is_library_name(text) or is_hub_id(_repository(text)))
    folder = Path(source)
    pair = holds_pipeline(folder) or folder_card(folder) is not None or (folder / "decoder").is_dir()
    return not pair and (
        is_open_clip_folder(folder) or (folder / "config.json").is_file() or (folder / "image_encoder").is_dir()
    )


def is_hub_id(repository: str) -> bool:
    """True if a text has the form `owner/name`."""
    return len(repository) <= 96 and re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository) is not None


def _repository(source: str) -> str:
    return source.removeprefix(OPEN_CLIP_HUB).partition("@")[0]


def hint_for_encoder(encoder: str) -> str:
    """Returns advice for an encoder without a decoder, to append to an error message."""
    return (
        f" An encoder without a decoder is looked at through pictures of your own: after `steerlens neighbours index "
        f"PICTURES --encoder {encoder}`, --model {encoder} shows the nearest of them; or through another encoder's "
        "decoder (steerlens bridge fit)."
    )


def is_folder(source: str | Path) -> bool:
    """True if a text or path names an existing folder; an empty text names none, not the current folder."""
    try:
        return bool(str(source).strip()) and Path(source).is_dir()
    except (OSError, ValueError):  # longer than any name of a file, or with a zero in it
        return False


def shortened(source: str | Path) -> str:
    """Shortens a user's text for a message of one line."""
    text = str(source)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
