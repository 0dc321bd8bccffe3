"""Where the parts of a pair are: in the package, in a folder, or on the hub.

A pair's folder has one of two layouts. A bundled pair is one folder, which may hold a vocabulary or a text encoder too:

    image_encoder/  image_processor/  decoder/{unet,movq,scheduler}

and two repositories of the hub side by side are another, whatever they are called:

    kandinsky-2-2-prior/{image_encoder,image_processor}  kandinsky-2-2-decoder/{unet,movq,scheduler}
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from steerlens.errors import ModelError, UsageError
from steerlens.zoo.cards import Card, Repository, card, cards, folder_card
from steerlens.zoo.hub import snapshot

ENCODER_FILES = (
    "image_encoder/config.json",
    "image_encoder/model.safetensors",
    "image_processor/preprocessor_config.json",
)
DECODER_FILES = (
    "model_index.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "movq/config.json",
    "movq/diffusion_pytorch_model.safetensors",
    "scheduler/scheduler_config.json",
)
TEXT_FILES = ("text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/vocab.json", "tokenizer/*")


@dataclass(frozen=True)
class Located:
    """Where the parts of a pair are on this machine.

    Attributes:
        encoder: folder with `image_encoder` and `image_processor`.
        decoder: folder with `unet`, `movq` and `scheduler`.
        folder: the pair's own folder, which may hold a vocabulary, a card and a manifest; None for a pair of the hub.
        texts: gives the folder with `text_encoder` and `tokenizer`, or None.
    """

    encoder: Path
    decoder: Path
    folder: Path | None
    texts: Callable[[], Path] | None = None


def locate(source: str | Path, *, local: str | Path | None = None, local_files_only: bool = False) -> Located:
    """Finds the folders of a pair, downloading those that are not on this machine.

    Raises:
        UsageError: if the source is neither a card nor a folder.
        ModelError: if a component is lacking, or the hub cannot be reached.
    """
    known = card_of(source)
    if local is not None:
        return _in_folder(Path(local))
    if known is None or known.folder is not None:
        return _in_folder(Path(source))
    if known.bundled_folder is not None:
        if not known.bundled_folder.is_dir():
            raise ModelError(f"the bundled pair {known.name!r} is missing from this installation; install it again.")
        return _in_folder(known.bundled_folder)
    first, second = cast(Repository, known.encoder), cast(Repository, known.decoder)
    owner = first.repository.split("/")[1], second.repository.split("/")[1]
    instead = (
        f"Run `steerlens doctor {known.name}` once where the hub can be reached, or give a folder that holds "
        f"{owner[0]}/ and {owner[1]}/ as the model."
    )
    fetch = partial(snapshot, local_files_only=local_files_only, instead=instead)
    return Located(
        fetch(first.repository, first.revision, ENCODER_FILES),
        fetch(second.repository, second.revision, DECODER_FILES),
        None,
        lambda: fetch(first.repository, first.revision, TEXT_FILES),
    )


def locate_encoder(
    source: str, revision: str | None = None, *, local_files_only: bool = False, config_only: bool = False
) -> tuple[Path, Repository | Path, str]:
    """Finds one encoder: its folder, what pins it (the commit that was resolved), and a note if the user did not.

    Args:
        source: a folder, or `owner/name` or `owner/name@revision` on the hub.
        revision: commit, branch or tag, where the source names none.
        local_files_only: never use the network.
        config_only: fetch the config alone.

    Raises:
        UsageError: if it is neither.
        ModelError: if it is not to be had.
    """
    if is_folder(source):
        return Path(source), Path(source), ""
    repository, _, at = source.partition("@")
    if len(repository) > 96 or re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", repository) is None:
        raise UsageError(
            f"there is no folder {shortened(source)!r}, and it is no hub id (owner/name or owner/name@revision)."
        )
    asked = at or revision
    folder = snapshot(
        repository,
        asked,
        ("config.json",) if config_only else ("config.json", "preprocessor_config.json"),
        local_files_only=local_files_only,
        instead="Give the folder of a local copy instead.",
        weights=None if config_only else "model",
    )
    place = Repository(repository, folder.name)  # the hub's cache calls the folder of a snapshot by its commit
    note = "" if asked else f"no revision of {repository} was asked for; this is {repository}@{place.revision}"
    return folder, place, note


def card_of(source: str | Path) -> Card | None:
    """The card of a name, or the card in a folder; None for a folder without one.

    Raises:
        UsageError: if it is neither.
        ModelError: if the folder's card is broken.
    """
    if isinstance(source, str) and source in cards():
        return cards()[source]
    if is_folder(source):
        return folder_card(Path(source))
    if isinstance(source, str) and source.strip() and "/" not in source and "\\" not in source:
        return card(source)  # raises, and names a model that comes close
    if not str(source).strip():
        raise UsageError(f"a model needs a name; known are {', '.join(cards())}, or give the path of a folder.")
    raise UsageError(f"there is no folder {shortened(source)}; known models are {', '.join(cards())}.")


def is_folder(source: str | Path) -> bool:
    """Whether a text or path names a folder that is there; an empty text names none, not the current one."""
    try:
        return bool(str(source).strip()) and Path(source).is_dir()
    except (OSError, ValueError):  # longer than any name of a file, or with a zero in it
        return False


def shortened(source: str | Path) -> str:
    """What a user gave, short enough for a message of one line."""
    text = str(source)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"


def _in_folder(folder: Path) -> Located:
    if (folder / "image_encoder").is_dir() and (folder / "decoder").is_dir():
        texts = (lambda: folder) if (folder / "text_encoder").is_dir() else None
        return _complete(Located(folder, folder / "decoder", folder, texts))
    # A pair's folder of which one half is missing is searched no further: it lacks that half.
    whole = [folder / part for part in ("image_encoder", "decoder") if (folder / part).is_dir()]
    children = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() and not whole else []
    encoders = [path for path in (folder, *children) if (path / "image_encoder").is_dir()]
    decoders = [path for path in (folder / "decoder", *children) if (path / "unet").is_dir()]
    if len(encoders) > 1 or len(decoders) > 1:
        found = ", ".join(path.name for path in (*encoders, *decoders))
        raise ModelError(f"{folder} holds more than one pair ({found}); give a folder with one.")
    if not encoders or not decoders:
        raise ModelError(
            f"{folder} holds no pair: {'an encoder' if not encoders else 'a decoder'} is lacking. There should be "
            "image_encoder/, image_processor/ and decoder/, or kandinsky-2-2-prior/ and kandinsky-2-2-decoder/ as on "
            "the hub."
        )
    first = encoders[0]
    return _complete(
        Located(first, decoders[0], folder, (lambda: first) if (first / "text_encoder").is_dir() else None)
    )


def _complete(located: Located) -> Located:
    wanted = [located.encoder / part for part in ("image_encoder", "image_processor")]
    wanted += [located.decoder / part for part in ("unet", "movq", "scheduler")]
    lacking = [str(path) for path in wanted if not path.is_dir()]
    if lacking:
        raise ModelError(
            f"the pair is incomplete: {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not there."
        )
    return located
