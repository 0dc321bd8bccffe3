"""Readers of picture archives: each yields named drawings.

Emoji of all packages share their concepts: they are matched by code point, or by name if a package has no codes.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image
from torch import Tensor

from steerlens.errors import PictureError, SteerlensError
from steerlens.images import decode_picture, load_with_alpha, picture_files
from steerlens.scenes.pictures import SIZE, Concept, to_tensor
from steerlens.scenes.sources import Source

_MOST_PIXELS = 89_478_485
"""Pixels of the largest drawing that is read; the archives contain posters of hundreds of millions."""

DROPPED_CATEGORIES = frozenset({"Flags", "Symbols", "People & Body", "Component"})
"""Emoji that are left out."""

_DROPPED_FOLDERS = re.compile(
    r"^(buttons|special|logos|military|unsorted/duplicates|computer/(buttons|icons|folders)"
    r"|shapes/(stars|arrows|callouts|flowchart|jigsaw)|signs_and_symbols/(flags|led)|recreation/games/cards"
    r"|symbols/(alphabets|math|money|music|shapes)|town/flags)(/|$)"
)
"""Folders of flags, stars, buttons, patterns, playing cards, letters, logos and user-interface icons."""

_AUTHORS = re.compile(
    "^(archi|archit|archite|architet.*"
    "|aj|andy|anthony|benji|bogdan|celso|charles|dan|daniel|dave|dirk|donna|enrique|erich|frederic|frouke|ganson"
    "|gerald|jakob|jarno|jean|jean-victor|joel|jon|jonadab|jonathan|juliane|leif|linda|luiz|lumen|marcelo|mateya"
    "|matthew|mauro|michael|mimooh|mo|nathan|nicolas|nicu|olivo|peterm|petri|rollandin|romus|saurabh|sergio|stefan"
    "|tanguy|yves|zazou"
    ")$"
)
"""First names of authors at the end of clip-art file names."""

_TAIL = frozenset({"bw", "bwh", "1m", "2m", "a", "b", "c", "mirror", "flip"})


@dataclass(frozen=True)
class Drawing:
    """One picture as read: its concept, its style and uint8 RGBA (4,64,64)."""

    concept: Concept
    style: str
    picture: Tensor


@dataclass(frozen=True)
class EmojiNames:
    """Emoji concepts by code point and by name.

    Attributes:
        by_code: code point sequence -> concept.
        by_name: letters and digits of a name -> concept.
    """

    by_code: dict[str, Concept] = field(default_factory=dict[str, Concept])
    by_name: dict[str, Concept] = field(default_factory=dict[str, Concept])

    def add_name(self, code: str, name: str) -> None:
        """Records another name of a code point, unless the name is taken or the code point left out."""
        concept = self.by_code.get(_code(code))
        if concept is not None:
            self.by_name.setdefault(_letters(name), concept)

    def named(self, name: str) -> Concept | None:
        """Returns the concept of a name, ignoring a final number, which numbers variants of an emoji."""
        return self.by_name.get(_letters(name)) or self.by_name.get(_letters(re.sub(r"-\d+$", "", name)))


def clean_name(name: str) -> str:
    """Normalises a name: lower case, single spaces, no underscores."""
    return " ".join(name.replace("_", " ").lower().split())


def file_concept_name(stem: str) -> str:
    """Returns the concept's name of a clip-art file, without final numbers, authors and variant marks."""
    words = [word for word in re.split(r"[_\s]+", stem.lower()) if word]
    for place in range(1, len(words)):
        if _AUTHORS.match(words[place]):
            words = words[:place]
            break
    words = [word for word in re.split(r"[_\-\s.]+", " ".join(words)) if word]
    while len(words) > 1 and (words[-1] in _TAIL or re.fullmatch(r"\d+r?", words[-1])):
        words.pop()
    name = " ".join(words)
    return re.sub(r"(?<=[a-z])\d+$", "", name)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _code(text: str) -> str:
    """Removes variation selectors, which differ between packages, from a code point sequence."""
    return "-".join(part for part in text.lower().split("-") if part != "fe0f")


@contextmanager
def _members(archive: Path) -> Generator[tarfile.TarFile]:
    """Opens the files of an npm archive, or of a Debian package.

    Raises:
        SteerlensError: `dpkg-deb`, which unpacks Debian packages, is missing or fails.
    """
    if archive.suffix != ".deb":
        with tarfile.open(archive) as opened:
            yield opened
        return
    try:
        done = subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], capture_output=True, check=True)
    except FileNotFoundError:
        raise SteerlensError(f"dpkg-deb is missing, which unpacks {archive}: install dpkg") from None
    except subprocess.CalledProcessError as error:
        raise SteerlensError(f"{archive} cannot be unpacked: {error.stderr.decode().strip()[-400:]}") from error
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as opened:
        yield opened


def _read(opened: tarfile.TarFile, name: str) -> bytes:
    handle = opened.extractfile(name)
    if handle is None:
        raise SteerlensError(f"cannot read {name} in {opened.name}")
    return handle.read()


def archive_of(source: Source, directory: Path) -> Path:
    """Returns the archive of a source.

    Raises:
        SteerlensError: it is not in the folder.
    """
    archive = source.archive(directory)
    if archive is None:
        raise SteerlensError(
            f"no archive of {source.label} in {directory}: run "
            f"`steerlens train prepare --data {directory} --sources {source.style}`"
        )
    return archive


def read_names(sources: Sequence[Source], directory: Path) -> EmojiNames:
    """Reads the kept emoji, in Unicode's order, with all their names in the sources."""
    names, labels = EmojiNames(), set[str]()
    for source in sources:
        if source.layout == "emoji" and not names.by_code:
            with _members(archive_of(source, directory)) as opened:
                entries = json.loads(_read(opened, "package/emoji.json"))
            for entry in sorted(entries, key=lambda entry: entry["sort_order"]):
                name = clean_name(entry["name"])
                if entry["category"] not in DROPPED_CATEGORIES and name not in labels:
                    labels.add(name)
                    names.by_code[_code(entry["unified"])] = Concept(name, entry["category"], entry["unified"])
            for entry in entries:
                for name in (entry["name"], *entry["short_names"]):
                    names.add_name(entry["unified"], name)
    for source in sources:
        if source.layout == "iconify":
            with _members(archive_of(source, directory)) as opened:
                for code, name in json.loads(_read(opened, "package/chars.json")).items():
                    names.add_name(code, name)
    return names


def read_sources(sources: Sequence[Source], directory: Path) -> Iterator[Drawing]:
    """Reads the drawings of all sources, source by source.

    Raises:
        SteerlensError: an archive is missing, or the renderer of SVG is not installed.
    """
    names = read_names(sources, directory)
    readers: Mapping[str, Callable[[Source, tarfile.TarFile, EmojiNames], Iterator[Drawing]]] = {
        "emoji": _read_coded,
        "assets": _read_coded,
        "iconify": _read_iconify,
        "folders": _read_folders,
    }
    for source in sources:
        with _members(archive_of(source, directory)) as opened:
            yield from readers[source.layout](source, opened, names)


def _read_coded(source: Source, opened: tarfile.TarFile, names: EmojiNames) -> Iterator[Drawing]:
    """Reads raster files named by code point."""
    folders = {"noto": "package/img/google/64/", "twemoji": "package/img/twitter/64/"}
    folder = folders.get(source.style, "package/assets/")
    for name in sorted(member.name for member in opened.getmembers() if member.isfile()):
        if name.startswith(folder):
            concept = names.by_code.get(_code(name.removeprefix(folder).rsplit(".", 1)[0]))
            if concept is not None:
                yield Drawing(
                    concept, source.style, to_tensor(decode_picture(_read(opened, name), name, alpha=True)[0])
                )


def _read_iconify(source: Source, opened: tarfile.TarFile, names: EmojiNames) -> Iterator[Drawing]:
    """Reads SVG drawings named in words; those that name no kept emoji are skipped."""
    table: dict[str, Any] = json.loads(_read(opened, "package/icons.json"))
    codes = {name: code for code, name in json.loads(_read(opened, "package/chars.json")).items()}
    aliases: dict[str, list[str]] = {}
    for alias, entry in table.get("aliases", {}).items():
        aliases.setdefault(entry["parent"], []).append(alias)
    for name, icon in table["icons"].items():
        spellings = [name, *aliases.get(name, [])]
        matches = [names.by_code.get(_code(codes[spelling])) for spelling in spellings if spelling in codes]
        matches += [names.named(spelling) for spelling in spellings]
        concept = next((concept for concept in matches if concept is not None), None)
        if concept is not None:
            size = [float(icon.get(side, table.get(side, 16))) for side in ("width", "height")]
            corner = [float(icon.get(side, 0)) for side in ("left", "top")]
            yield Drawing(concept, source.style, to_tensor(render_svg(icon["body"], corner, size)))


def _read_folders(source: Source, opened: tarfile.TarFile, names: EmojiNames) -> Iterator[Drawing]:
    """Reads raster files in folders of categories; a file with an emoji's name has that emoji's concept."""
    for name in sorted(member.name for member in opened.getmembers() if member.isfile()):
        path = PurePosixPath(name)
        folders = path.parts[path.parts.index("share") + 2 : -1] if "share" in path.parts else ()
        folder = "/".join(part for part in folders if part not in {"png", "stamps"})
        if path.suffix.lower() != ".png" or _DROPPED_FOLDERS.match(folder) or "flag" in path.stem.lower():
            continue
        label = file_concept_name(path.stem)
        if len(label) < 3 or "tux" in label.split():  # a number or a letter names nothing
            continue
        concept = names.by_name.get(_letters(label)) or Concept(label, folder, label)
        picture = _open_raster(_read(opened, name))
        if picture is not None:
            yield Drawing(concept, source.style, to_tensor(trimmed(picture)))


def trimmed(image: Image.Image) -> Image.Image:
    """Crops the transparent margin of an RGBA picture; a fully transparent picture stays unchanged."""
    image = image.convert("RGBA")
    visible = image.getchannel("A").point([255 if alpha > 8 else 0 for alpha in range(256)]).getbbox()
    return image if visible is None else image.crop(visible)


def _open_raster(data: bytes) -> Image.Image | None:
    """Decodes a picture, or returns None if it is broken or enormous (posters of hundreds of megapixels)."""
    try:
        return decode_picture(data, "picture", max_pixels=_MOST_PIXELS, alpha=True)[0]
    except PictureError:
        return None


def render_svg(body: str, corner: Sequence[float], size: Sequence[float]) -> Image.Image:
    """Renders SVG elements to an RGBA picture, at twice the side of a prepared picture.

    Args:
        body: the elements.
        corner: x and y of the upper left corner, in SVG units.
        size: width and height, in SVG units.

    Raises:
        SteerlensError: the renderer is not installed.
    """
    try:
        renderer: Any = import_module("resvg_py")
    except ImportError:
        raise SteerlensError("SVG pictures need a renderer: pip install 'steerlens[train]' or resvg-py") from None
    box = " ".join(f"{number:g}" for number in (*corner, *size))
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" width="{size[0]:g}" height="{size[1]:g}">{body}</svg>'
    )
    width = round(2 * SIZE * size[0] / max(size))
    png = bytes(renderer.svg_to_bytes(svg_string=svg, width=width, skip_system_fonts=True))
    return decode_picture(png, "a drawing", alpha=True)[0]


def read_folder(directory: Path) -> Iterator[Drawing]:
    """Reads drawings named `style/name.png` or `name.png`; best are PNG or WebP with transparency."""
    for path in picture_files(directory):
        if path.suffix.lower() in {".png", ".webp", ".jpg", ".jpeg"}:
            style = path.parent.name if path.parent != directory else "own"
            name = clean_name(path.stem.replace("-", " "))
            yield Drawing(Concept(name, style, name), style, to_tensor(load_with_alpha(path)))
