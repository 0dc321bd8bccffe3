"""Locating an encoder: that of a card or of a pair's folder, in a folder by itself, or on the hub."""

import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from steerlens.decoders import is_index, source_of_index
from steerlens.encoders import OPEN_CLIP_FILES, is_timm_folder
from steerlens.errors import ModelError, UsageError
from steerlens.zoo.cards import Card, Repository, cards, did_you_mean
from steerlens.zoo.hub import FilesMissingError, cached_snapshot, snapshot
from steerlens.zoo.library_names import hub_source, is_weights_file, what_an_encoder_is
from steerlens.zoo.locating import LocatedPair, card_files, is_joint, locate_pair, pinned, warn_of_terms
from steerlens.zoo.registry import opener_for
from steerlens.zoo.sources import OPEN_CLIP_HUB, has_no_decoder, is_folder, is_hub_id, shortened

_SHAPE = "?shape="
"""Begins the shape of pictures at the end of a source."""


@dataclass(frozen=True)
class LocatedEncoder:
    """An encoder's files on this machine.

    Attributes:
        folder: folder with `config.json`, or with the subfolders `image_encoder` and `image_processor`.
        source: text that finds it again from any folder: a card's name, a full path, or a hub id with its commit.
        place: origin of its files.
        note: message to the user; usually empty.
        library: `open_clip` if the source requests its model; many repositories contain one of transformers too.
        of_pair: whether it belongs to a pair, which may be saved without its image processor.
        joint: the whole model, if encoder and decoder are one.
        processor: folder of its image processor, if that is not beside it.
        shape: width and height of the pictures to see, for a model of pictures of any shape.
    """

    folder: Path
    source: str
    place: Repository | Path
    note: str = ""
    library: str | None = None
    of_pair: bool = False
    joint: LocatedPair | None = None
    processor: Path | None = None
    shape: tuple[int, int] | None = None

    @property
    def files(self) -> dict[str, Path]:
        """Folders of the files that decide its embeddings, by component; see `provenance.file_hashes`."""
        return {"image_encoder": inner_folder(self.folder), "image_processor": self.processing}

    @property
    def processing(self) -> Path:
        """Folder of its image processor's config."""
        return processor_folder(self.folder) if self.processor is None else self.processor


def locate_encoder_in(name: str, local: Path) -> LocatedEncoder:
    """Locates the encoder of a card in a folder of the user's, in place of a download.

    Args:
        name: the card's name.
        local: folder with the model's files in the hub's layout.

    Raises:
        UsageError: if there is no such card.
        ModelError: if the folder lacks its files.
    """
    pair = locate_pair(name, local=local)
    joint = pair if pair.joint else None
    return LocatedEncoder(pair.encoder, name, pair.encoder, of_pair=True, joint=joint, processor=pair.processor)


def locate_encoder(source: str | Path, *, local_files_only: bool = False, config_only: bool = False) -> LocatedEncoder:
    """Locates the encoder of a card, of a pair's folder, or by itself; no decoder is fetched.

    Args:
        source: a card's name, a folder, or a hub id (see `load_encoder`); a folder with an index of pictures stands for
            the encoder of the index. For a model of pictures of any shape (NaFlex), `?shape=WIDTHxHEIGHT` at its end
            says which pictures it sees.
        local_files_only: never use the network.
        config_only: fetch only the config.

    Raises:
        UsageError: if it is none of them, or the shape is not readable.
        ModelError: if it cannot be fetched.
    """
    text, mark, shape = str(source).partition(_SHAPE)
    if mark:
        sides = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", shape)
        if sides is None:
            raise UsageError(f"{_SHAPE}{shape}: a shape is WIDTHxHEIGHT, such as {_SHAPE}448x336.")
        located = locate_encoder(text, local_files_only=local_files_only, config_only=config_only)
        return replace(located, source=f"{located.source}{_SHAPE}{shape}", shape=(int(sides[1]), int(sides[2])))
    known = cards().get(text)
    if known is not None:
        return _of_card(known, local_files_only, config_only)
    if not is_folder(source):
        return locate_lone_encoder(text, local_files_only=local_files_only, config_only=config_only)
    folder = Path(source).resolve()
    if is_index(folder):
        _refuse_circle(folder)
        maker = locate_encoder(source_of_index(folder), local_files_only=local_files_only, config_only=config_only)
        return replace(maker, source=str(folder))
    inside, alone = (folder / "image_encoder").is_dir(), has_no_decoder(folder)
    if inside or alone or opener_for(folder) is not None:
        return LocatedEncoder(folder, str(folder), folder, of_pair=inside and not alone)
    located = locate_pair(folder)
    joint = located if located.joint else None
    return LocatedEncoder(located.encoder, str(folder), folder, of_pair=True, joint=joint)


def _refuse_circle(index: Path) -> None:
    """Refuses an index whose encoder is that of another index, and so on back to the first.

    Raises:
        ModelError: if it is one.
    """
    passed = [index]
    while is_folder(source := source_of_index(passed[-1])) and is_index(place := Path(source).resolve()):
        if place in passed:
            raise ModelError(
                f"the index in {index} says that its encoder is that of the index in {place}, which leads back to it; "
                "make it again with an encoder."
            )
        passed.append(place)


def locate_lone_encoder(
    source: str, revision: str | None = None, *, local_files_only: bool = False, config_only: bool = False
) -> LocatedEncoder:
    """Locates an encoder in a folder or on the hub; a note says if the user pinned no commit.

    Args:
        source: a folder, `owner/name` or `owner/name@revision` on the hub, or a name of open_clip or timm (see
            `library_names`). A repository with a model of open_clip and none of transformers is opened as open_clip's;
            `hf-hub:owner/name` requests that of open_clip.
        revision: commit, branch or tag, if the source names none.
        local_files_only: never use the network.
        config_only: fetch only the config.

    Raises:
        UsageError: if it is neither.
        ModelError: if it cannot be fetched.
    """
    if is_folder(source):
        return LocatedEncoder(Path(source), str(Path(source).resolve()), Path(source))
    source = hub_source(source)
    repository, _, at = source.removeprefix(OPEN_CLIP_HUB).partition("@")
    if not is_hub_id(repository) or is_weights_file(source):
        raise UsageError(
            f"there is no encoder {shortened(source)!r}{did_you_mean(source) or '.'} {what_an_encoder_is(source)}"
        )
    revision = at or revision
    fetch = partial(
        snapshot,
        repository,
        revision,
        local_files_only=local_files_only,
        instead="Give the folder of a local copy instead.",
        weights=None if config_only else "model",
    )
    fetch_open_clip = partial(fetch, OPEN_CLIP_FILES[:1] if config_only else OPEN_CLIP_FILES, weights=None)
    if source.startswith(OPEN_CLIP_HUB):
        folder = fetch_open_clip()
    else:
        try:
            folder = fetch(("config.json",) if config_only else ("config.json", "preprocessor_config*.json"))
            # Models of timm tell how pictures are prepared in their config; all others hold it in a file of its own.
            if not config_only and not is_timm_folder(folder):
                folder = fetch(("config.json", "preprocessor_config.json"))
        except ModelError as error:
            # If the hub cannot be reached, the cache says which files there are.
            cached = [cached_snapshot(repository, revision, files) for files in (("config.json",), OPEN_CLIP_FILES)]
            if not isinstance(error, FilesMissingError) and (cached[0] is not None or cached[1] is None):
                raise
            try:
                folder = fetch_open_clip()
            except FilesMissingError:
                raise error from None
    place = Repository(repository, folder.name)  # the hub's cache calls the folder of a snapshot by its commit
    note = "" if revision else f"no revision of {repository} was asked for; this is {repository}@{place.revision}"
    mark = OPEN_CLIP_HUB if source.startswith(OPEN_CLIP_HUB) else ""
    lasting = f"{mark}{place.repository}@{place.revision}"
    return LocatedEncoder(folder, lasting, place, note, library="open_clip" if mark else None)


def _of_card(known: Card, local_files_only: bool, config_only: bool) -> LocatedEncoder:
    if known.bundled_folder is not None:
        located = locate_pair(known.name, local_files_only=local_files_only)
        place = located.encoder if known.encoder is None else pinned(known.encoder, located.encoder)
        return LocatedEncoder(located.encoder, known.name, place, of_pair=True, processor=located.processor)
    if known.encoder is None:
        raise UsageError(f"{known.name} has no encoder of its own; name one.")
    if is_joint(known) and not config_only:
        located = locate_pair(known.name, local_files_only=local_files_only)
        return LocatedEncoder(located.encoder, known.name, pinned(known.encoder, located.encoder), joint=located)
    place, files = card_files(known)[0]
    files = tuple(file for file in files if file.endswith("config.json")) if config_only else files
    instead = "Give the folder of a local copy of the encoder instead."
    if not config_only and not local_files_only:
        warn_of_terms(known, [(place, files)])
    root = snapshot(place.repository, place.at, files, local_files_only=local_files_only, instead=instead)
    return LocatedEncoder(root / place.path, known.name, pinned(place, root), of_pair=True)


def inner_folder(folder: Path) -> Path:
    """Returns the folder of an encoder's own config and weights."""
    return folder / "image_encoder" if (folder / "image_encoder").is_dir() else folder


def processor_folder(folder: Path) -> Path:
    """Returns the folder of an encoder's image processor config."""
    for name in ("image_processor", "feature_extractor"):
        if (folder / name).is_dir():
            return folder / name
    return inner_folder(folder)
