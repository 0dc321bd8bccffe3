"""Model cards: description, origin and default options of each named pair.

Cards are read without importing torch, so that listing them is quick.
"""

import difflib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import yaml

from steerlens.errors import ModelError, UsageError
from steerlens.storage import read_yaml
from steerlens.zoo.registry import registered

if TYPE_CHECKING:
    from steerlens.decoders import DecodeOptions


@dataclass(frozen=True)
class Repository:
    """A place on the Hugging Face hub, pinned if its commit is known.

    Attributes:
        repository: `owner/name`.
        revision: the full commit hash; None if unknown, and a note then says which commit was loaded.
        branch: branch or tag instead of the main branch, which pins nothing.
        path: folder or file within the repository; empty for all of it.
    """

    repository: str
    revision: str | None = None
    branch: str | None = None
    path: str = ""

    @property
    def at(self) -> str | None:
        """Commit, branch or tag on the hub; None for the main branch."""
        return self.revision or self.branch

    def __post_init__(self) -> None:
        if self.repository.count("/") != 1:
            raise ModelError(f"{self.repository!r} is no owner/name.")
        if self.revision is None:
            return
        if len(self.revision) != 40 or set(self.revision) - set("0123456789abcdef"):
            raise ModelError(f"{self.repository}: {self.revision!r} is no full commit hash, and so pins nothing.")


@dataclass(frozen=True)
class Defaults:
    """Default options of a decoder; see `DecodeOptions`.

    Attributes:
        scheduler: the sampler.
        steps: denoising steps.
        guidance: classifier-free guidance scale.
        size: height and width in pixels.
    """

    scheduler: str
    steps: int
    guidance: float
    size: tuple[int, int]

    def options(self) -> "DecodeOptions":
        """Returns the options of the decoder."""
        from steerlens.decoders import DecodeOptions

        return DecodeOptions(self.steps, self.guidance, cast(Any, self.scheduler), self.size)


@dataclass(frozen=True)
class Card:
    """A named pair of encoder and decoder.

    Attributes:
        name: name of the pair in commands.
        title: description in one line.
        domain: pictures that the decoder was trained on, in words; empty if a pair's own card does not say.
        licence: licence of the weights.
        paper: arXiv id.
        consumes: kind of the decoder's conditioning.
        embedding_size: E of embeddings, D of image tokens; 0 for any.
        layers: L of the encoder; 0 for any.
        heads: H of the encoder; 0 for any.
        gigabytes: size of the download, in 10^9 bytes.
        defaults: default options of the decoder.
        strength: default steering strength, a text for `Strength.parse`.
        reencoding_cosine: least cosine between the embedding of a picture and that of its decoded picture.
        family: name of the decoder's adapter.
        bundled: folder within this package, for a bundled pair.
        encoder: place of the encoder on the hub, for other pairs.
        decoder: place of the decoder on the hub.
        adapter: the file of an IP-Adapter's weights, which go into the decoder.
        configs: name of the full configs in the package, which give costs and names of weights without the weights.
        folder: folder of the card, for a pair that is neither bundled nor on the hub.
        mirror: `owner/name` of another publisher's copy, for a decoder whose own repository has left the hub.
        terms: terms of use that are shown before a download, such as those of a non-commercial licence; or empty.
        pickled: file of the decoder's weights, if they are published only as a pickle, which is never opened; or empty.
    """

    name: str
    title: str
    domain: str
    licence: str
    paper: str
    consumes: str
    embedding_size: int
    layers: int
    heads: int
    gigabytes: float
    defaults: Defaults
    strength: str
    reencoding_cosine: float
    family: str = "kandinsky-2.2"
    bundled: str | None = None
    encoder: Repository | None = None
    decoder: Repository | None = None
    adapter: Repository | None = None
    configs: str | None = None
    folder: Path | None = None
    mirror: str | None = None
    terms: str = ""
    pickled: str = ""

    def __post_init__(self) -> None:
        elsewhere = self.folder is not None or self.family == "neighbours"
        if not elsewhere and (self.bundled is None) == (self.encoder is None or self.decoder is None):
            raise ModelError(f"card {self.name}: a pair is either bundled or has an encoder and a decoder on the hub.")
        if not 0 < self.reencoding_cosine < 1:
            raise ModelError(f"card {self.name}: reencoding_cosine lies between 0 and 1.")

    @property
    def bundled_folder(self) -> Path | None:
        """The folder of a bundled pair, which may be missing."""
        return None if self.bundled is None else Path(str(files("steerlens.zoo") / self.bundled))


def parse_card(name: str, content: Mapping[str, Any]) -> Card:
    """Builds a card from the content of its YAML file.

    Raises:
        ModelError: if a field is unknown, missing, or of the wrong kind.
    """
    given = dict(content)
    for key, kind in (
        ("defaults", Defaults),
        ("encoder", Repository),
        ("decoder", Repository),
        ("adapter", Repository),
    ):
        if given.get(key) is not None:
            given[key] = _build(kind, given[key], f"card {name}: {key}")
    return _build(Card, {"name": name, **given}, f"card {name}")


_ELSEWHERE = ("name", "bundled", "encoder", "decoder", "adapter", "configs", "folder", "mirror")
"""Fields of a pair's place, which the card in a pair's own folder does not have."""


def folder_card(folder: Path) -> Card | None:
    """Reads the card in a pair's own folder, `card.yaml`, or returns None if there is none.

    It has the fields of a card except those of the pair's place.

    Raises:
        ModelError: if it cannot be read, or a field is unknown, missing or of the wrong kind.
    """
    path = folder / "card.yaml"
    try:
        content: Any = read_yaml(path)
    except FileNotFoundError:
        return None
    if not isinstance(content, Mapping):
        raise ModelError(f"{path}: should be a table of fields.")
    given = {"domain": "", **cast(Mapping[str, Any], content)}  # cards of earlier versions have none
    wrong = [field for field in _ELSEWHERE if field in given]
    if wrong:
        raise ModelError(f"{path}: {', '.join(wrong)} has no place in the card of a folder.")
    given["defaults"] = _build(Defaults, given.get("defaults"), f"{path}: defaults")
    return _build(Card, {**given, "name": folder.name, "folder": folder}, str(path))


@cache
def cards() -> Mapping[str, Card]:
    """Reads every card by name: those of bundled pairs, and those beside registered decoders.

    Raises:
        ModelError: if a card is broken, or two have one name.
    """
    known: dict[str, Card] = {}
    for file in sorted(_card_files(), key=lambda file: file.stem):
        if file.stem in known:
            raise ModelError(f"{file}: there is another card called {file.stem}; rename one, or uninstall its package.")
        known[file.stem] = parse_card(file.stem, yaml.safe_load(file.read_text(encoding="utf-8")))
    return MappingProxyType(known)


def _card_files() -> set[Path]:
    """Lists the YAML files in `zoo/cards` and in the packages of registered decoders, without importing them."""
    folders = {Path(str(files("steerlens.zoo") / "cards"))}
    for place in registered("steerlens.decoders").values():
        # A decoder that is a single file has no folder of its own, and so no cards.
        with suppress(ImportError, ValueError):
            spec = find_spec(place.partition(":")[0])
            if spec is not None:
                folders.update(map(Path, spec.submodule_search_locations or ()))
    return {file for folder in folders for file in folder.glob("*.yaml")}


def card(name: str) -> Card:
    """Returns the card of a name.

    Raises:
        UsageError: if there is none; the message suggests a similar name.
    """
    known = cards()
    if name in known:
        return known[name]
    shown = name if len(name) <= 80 else f"{name[:60]}..."
    raise UsageError(
        f"there is no model {shown!r}{did_you_mean(name) or '.'} `steerlens models` lists all; or give the path of a "
        "folder that holds an encoder and a decoder."
    )


def did_you_mean(name: str) -> str:
    """Suggests the card whose name is most like a text, as the end of a sentence; empty if none is like it."""
    close = difflib.get_close_matches(name.lower()[:80], cards(), n=1, cutoff=0.5)
    return f". Did you mean {close[0]}?" if close else ""


_KINDS: Mapping[Any, tuple[type, ...]] = {
    str: (str,),
    str | None: (str, type(None)),
    int: (int,),
    float: (int, float),
    tuple[int, int]: (list, tuple),
    Defaults: (Defaults,),
    Path | None: (Path, type(None)),
    Repository | None: (Repository, type(None)),
}


def _build(kind: type[Any], content: Any, where: str) -> Any:
    if not isinstance(content, Mapping):
        raise ModelError(f"{where}: should be a table of fields.")
    known = {field.name: field for field in fields(kind)}
    unknown = sorted(set(map(str, cast(Any, content))) - set(known))
    missing = sorted(name for name, field in known.items() if field.default is MISSING and name not in content)
    if unknown or missing:
        complaints = [f"unknown: {', '.join(unknown)}"] * bool(unknown) + [f"missing: {', '.join(missing)}"] * bool(
            missing
        )
        raise ModelError(f"{where}: fields {'; '.join(complaints)}.")
    values: dict[str, Any] = {}
    for key, item in cast(Mapping[str, Any], content).items():
        value: Any = item
        annotation: Any = known[key].type
        fits = isinstance(value, _KINDS[annotation]) and not isinstance(value, bool)
        if fits and annotation == tuple[int, int]:
            sides = cast(Sequence[Any], value)
            fits = len(sides) == 2 and all(type(side) is int for side in sides)
        if not fits:
            raise ModelError(f"{where}: {key} is {value!r}, which is no {getattr(annotation, '__name__', annotation)}.")
        values[key] = tuple(cast(Any, value)) if isinstance(value, list) else value
    return kind(**values)
