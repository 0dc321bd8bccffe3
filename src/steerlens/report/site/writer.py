"""Writes a site of runs.

    index.html                       all runs, with thumbnails of their inputs
    assets/page-HASH.js, .css        script and styles of all pages
    RUN/index.html, RUN/INPUT.html   a page for each input; RUN/INPUT.html#/head/L7H3 is a head
    RUN/data/INPUT.json              its numbers; INPUT.attention beside it
    RUN/pictures/INPUT/N.webp        its pictures, loaded when they come into view
    RUN/cards/INPUT/L7H3.json        the card of a head, loaded when it is opened
    RUN/share/INPUT.jpg              what other sites show beside a link to the page
    RUN/heads/INPUT/L7H3.html, .jpg  the same for the best heads: a small page to share, which forwards to the head
    site.json                        version, runs, inputs, and names of all files

The pages are the report's own, linked to files instead of holding them. A page works under any path of any server.
"""

import hashlib
import json
from collections.abc import Generator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

from markupsafe import Markup

from steerlens._version import __version__
from steerlens.atlas import Atlas, Reading
from steerlens.errors import StoreError, UsageError
from steerlens.limits import read_file
from steerlens.progress import Progress
from steerlens.report.cards import head_card_data
from steerlens.report.citing import made_by
from steerlens.report.content import Addresses, page_meta, picture_data
from steerlens.report.embed import packed_bytes, webp_bytes
from steerlens.report.findings import sentences
from steerlens.report.html import Linked, asset, page_environment, plain_json, report_page, short_name
from steerlens.report.seen import seen_picture
from steerlens.report.site.heads import head_pages
from steerlens.report.site.social import SIZE, social_picture
from steerlens.storage import OwnedFolder, distinct_names, parse_json

PICTURE_SIDE, INPUT_SIDE, THUMBNAIL_SIDE = 256, 384, 128
"""Longest sides, in pixels, of decoded pictures, of input pictures, and of those on the index."""

MARKER = "site.json"
"""File by which a site is known."""


@dataclass(frozen=True)
class Site:
    """A site that was written.

    Attributes:
        folder: its folder.
        runs: number of runs.
        inputs: number of input pictures, a page each.
        pictures: number of decoded pictures.
        files: number of files.
        bytes: size of all files.
    """

    folder: Path
    runs: int
    inputs: int
    pictures: int
    files: int
    bytes: int


@dataclass(frozen=True)
class _Entry:
    """A run on the index."""

    name: str
    atlas: Atlas
    pages: tuple["_Page", ...]


@dataclass(frozen=True)
class _Page:
    """An input of a run: names of its files."""

    id: str
    name: str
    stem: str

    @property
    def html(self) -> str:
        return f"{self.stem}.html"


def publish_site(
    runs: Mapping[str, Atlas], folder: Path, *, url: str = "", title: str = "", force: bool = False
) -> Generator[Progress, None, Site]:
    """Writes a site of runs, yields progress, and returns what was written.

    Args:
        runs: runs by name; names become folders.
        folder: a new or empty folder, or a site to replace.
        url: address under which the site will stand, for the pictures beside shared links, whose addresses must be
            whole.
        title: title of the index.
        force: True to replace the files of a site in the folder.

    Raises:
        UsageError: if a run has no picture, or the folder contains other files.
        StoreError: if it cannot be written; nothing is left behind then.
    """
    _check_folder(folder, force)
    address = _checked_url(url)
    if not runs:
        raise UsageError("no run was given; name at least one run directory.")
    for name, atlas in runs.items():
        if not atlas.finished:
            raise UsageError(f"{name} has no decoded picture yet: there is nothing to publish.")
    own, new = OwnedFolder(folder), not folder.exists()
    before = site_files(folder)
    writer = _Writer(own, address, title, force)
    try:
        yield from writer.write(runs)
    except BaseException:  # whatever stopped it, the same command must not find half a site
        own.take_back()
        if new:
            with suppress(OSError):
                folder.rmdir()
        raise
    _remove_stale(own, before, writer.names)
    inputs = sum(len(atlas.readings) for atlas in runs.values())
    pictures = sum(len(atlas.finished) for atlas in runs.values())
    return Site(folder, len(runs), inputs, pictures, len(writer.names), writer.bytes)


def site_files(folder: Path) -> tuple[str, ...]:
    """Returns the files of a site, relative to its folder, as its marker lists them; none where it lists none."""
    try:
        content = parse_json(read_file(folder / MARKER, "manifest_bytes"))
    except (UsageError, ValueError):
        return ()
    # Other generators have files of this name too.
    ours = isinstance(content, dict) and "steerlens" in content
    listed: object = cast(dict[str, object], content).get("files") if ours else None
    names = cast(list[object], listed) if isinstance(listed, list) else []
    return tuple(name for name in names if isinstance(name, str))


def _remove_stale(own: OwnedFolder, before: Iterable[str], now: Iterable[str]) -> None:
    """Removes files of an earlier site that the new one lacks: whoever takes an input back wants its page gone."""
    for name in sorted(set(before) - set(now)):
        with suppress(StoreError, OSError):  # anything but a file inside the folder is left alone
            place = own.path(*name.split("/"))
            place.unlink()
            for above in place.parents[: len(name.split("/")) - 1]:
                above.rmdir()  # fails, and ends the loop, where something is left


def _check_folder(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give another --out.")
    other = next(iter(folder.glob("*")), None) if folder.exists() else None
    if other is None:
        return
    if not (folder / MARKER).is_file():
        raise UsageError(f"{folder} is not empty (it contains {other.name}) and is no site; give another --out.")
    if not force:
        raise UsageError(f"{folder} contains a site already; give another --out, or --force to replace it.")


def _checked_url(url: str) -> str:
    if not url:
        return ""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.netloc)
    except ValueError:  # a half of the brackets of an IPv6 address
        whole = False
    if not whole or not url.isprintable() or " " in url:
        raise UsageError(f"{url!r} is not the address of a site; give one such as https://example.org/atlas.")
    return url.rstrip("/") + "/"


class _Writer:
    """Writer of one site."""

    def __init__(self, own: OwnedFolder, url: str, title: str, force: bool) -> None:
        self._own, self._url, self._title, self._force = own, url, title, force
        self.names, self.bytes = list[str](), 0

    def write(self, runs: Mapping[str, Atlas]) -> Generator[Progress]:
        done, total = 0, sum(len(atlas.finished) for atlas in runs.values())
        yield Progress("publishing", 0, total, "pictures")
        style, script = self._asset("page", "css", asset("report.css")), self._asset("page", "js", asset("site.js"))
        forward = self._asset("forward", "js", asset("forward.js"))
        folders = distinct_names({name: (name, str(index)) for index, name in enumerate(runs)})
        entries = [_Entry(folders[name], atlas, _pages(atlas)) for name, atlas in runs.items()]
        for entry in entries:
            for page in entry.pages:
                reading = entry.atlas.reading(page.id)
                shared = self._write_heads(entry, page, reading, style, forward)
                yield from self._write_pictures(entry, page, reading, shared, done, total)
                done += len(entry.atlas.results_of(page.id))
                html = self._page(entry, page, reading, style, script)
                self._add(html.encode(), entry.name, page.html)
                if page is entry.pages[0]:
                    self._add(html.encode(), entry.name, "index.html")
        self._add(self._index(entries, style).encode(), "index.html")
        self._add(b"", ".nojekyll")  # pages hosts would leave out folders whose names begin with an underscore
        self._add(_marker(entries, [*self.names, MARKER]), MARKER)

    def _write_pictures(
        self, entry: _Entry, page: _Page, reading: Reading, shared: Mapping[str, str], done: int, total: int
    ) -> Generator[Progress]:
        atlas, stem = entry.atlas, page.stem
        picture = reading.picture.image
        self._add(webp_bytes(picture, side=INPUT_SIDE), entry.name, "pictures", stem, "input.webp")
        self._add(
            webp_bytes(seen_picture(atlas, reading), side=PICTURE_SIDE), entry.name, "pictures", stem, "view.webp"
        )
        self._add(webp_bytes(picture, side=THUMBNAIL_SIDE), entry.name, "pictures", stem, "small.webp")
        cells = dict[str, str]()
        for number, result in enumerate(atlas.results_of(page.id)):
            name = f"{number}.webp"
            self._add(webp_bytes(result.picture, side=PICTURE_SIDE), entry.name, "pictures", stem, name)
            cells[result.cell.key] = name
            yield Progress("publishing", done + number + 1, total, "pictures")
        attention = None
        if reading.attention is not None:
            attention = f"{stem}.attention"
            self._add(packed_bytes(reading.attention.float().numpy()), entry.name, "data", attention)
        data = plain_json(
            picture_data(
                atlas,
                reading,
                addresses=Addresses("input.webp", "view.webp", cells, attention, self._write_cards(entry, page)),
            )
        )
        # Hundreds of heads lack the same numbers; the page puts them back.
        data["sites"] = _without_gaps(data["sites"])
        data["shared"] = dict(shared)
        self._add(_json(data), entry.name, "data", f"{stem}.json")
        title = f"What each part of {short_name(atlas.encoder.name)} writes: {reading.picture.name}"
        self._add(social_picture(atlas, reading, title), entry.name, "share", f"{stem}.jpg")

    def _write_cards(self, entry: _Entry, page: _Page) -> dict[str, str]:
        """Writes the cards of the input's heads; returns the names of their files by text form of the head."""
        cards, names = entry.atlas.cards.get(page.id), dict[str, str]()
        if cards is None:
            return names
        for card in cards.heads:
            name = names[str(card.site)] = f"{card.site.label}.json"
            self._add(_json(plain_json(head_card_data(cards, card))), entry.name, "cards", page.stem, name)
        return names

    def _write_heads(self, entry: _Entry, page: _Page, reading: Reading, style: str, script: str) -> dict[str, str]:
        """Writes the pages of the input's best heads; returns their addresses from the page of the input."""
        folder = f"{quote(entry.name)}/heads/{quote(page.stem)}/"
        heads = head_pages(
            entry.atlas,
            reading,
            page=f"../../{page.html}",
            style=f"../../../{style}",
            script=f"../../../{script}",
            url=f"{self._url}{folder}" if self._url else "",
        )
        for head in heads:
            self._add(head.html.encode(), entry.name, "heads", page.stem, f"{head.stem}.html")
            self._add(head.picture, entry.name, "heads", page.stem, f"{head.stem}.jpg")
        return {head.site: f"heads/{quote(page.stem)}/{quote(head.stem)}.html" for head in heads}

    def _page(self, entry: _Entry, page: _Page, reading: Reading, style: str, script: str) -> str:
        meta = page_meta(entry.atlas)
        meta["run"] = entry.name
        meta["pictures"] = [{"id": other.id, "name": other.name, "page": quote(other.html)} for other in entry.pages]
        meta["site"] = {"index": "../index.html"}
        stem = quote(page.stem)
        encoder = short_name(entry.atlas.encoder.name)
        linked = Linked(
            styles=(f"../{style}",),
            scripts=(f"../{script}",),
            meta=meta,
            policy="default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'",
            preload=f"data/{stem}.json",
            title=f"{reading.picture.name} · {encoder}",
            description=" ".join(sentences(entry.atlas, reading)[:2]),
            image=f"{self._url}{quote(entry.name)}/share/{stem}.jpg" if self._url else f"share/{stem}.jpg",
            image_size=SIZE,
            address=f"{self._url}{quote(entry.name)}/{quote(page.html)}" if self._url else "",
            index="../index.html",
        )
        return report_page(entry.atlas, linked=linked)

    def _index(self, entries: list[_Entry], style: str) -> str:
        first = entries[0]
        share = f"{quote(first.name)}/share/{quote(first.pages[0].stem)}.jpg"
        return (
            page_environment()
            .get_template("site.html.j2")
            .render(
                version=__version__,
                title=self._title or "What each part of a Vision Transformer writes",
                style=style,
                image=self._url + share,
                image_size=SIZE,
                address=self._url,
                runs=[
                    {
                        "name": entry.name,
                        "folder": Markup(quote(entry.name)),
                        "encoder": short_name(entry.atlas.encoder.name),
                        "layers": entry.atlas.encoder.n_layers,
                        "heads": entry.atlas.encoder.n_heads,
                        "pictures": len(entry.atlas.finished),
                        "strength": str(entry.atlas.plan.strength).replace("rho=", "ρ = ").replace("s=", "s = "),
                        "made": made_by(entry.atlas.manifest, short_name(entry.atlas.encoder.name)),
                        "inputs": [
                            {"name": page.name, "page": Markup(quote(page.html)), "stem": Markup(quote(page.stem))}
                            for page in entry.pages
                        ],
                    }
                    for entry in entries
                ],
            )
        )

    def _asset(self, stem: str, kind: str, text: str) -> str:
        """Writes a file whose name changes with its content, so that browsers may keep it; returns its address."""
        name = f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:10]}.{kind}"
        self._add(text.encode(), "assets", name)
        return f"assets/{name}"

    def _add(self, data: bytes, *names: str) -> None:
        self._own.add(data, *names, replace=self._force)
        self.names.append("/".join(names))
        self.bytes += len(data)


def _pages(atlas: Atlas) -> tuple[_Page, ...]:
    names = {reading.id: reading.picture.name for reading in atlas.readings}
    # `index` is the name of the run's own page.
    wanted = {id: (f"{name}-input" if name.casefold() == "index" else name, id) for id, name in names.items()}
    stems = distinct_names(wanted)
    return tuple(_Page(id, names[id], stems[id]) for id in names)


def _marker(entries: list[_Entry], files: list[str]) -> bytes:
    runs = {entry.name: [page.html for page in entry.pages] for entry in entries}
    content = {"steerlens": __version__, "runs": runs, "files": files}
    return json.dumps(content, ensure_ascii=False, indent=1).encode()


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _without_gaps(value: Any) -> Any:
    """Leaves out what is not known, null or empty."""
    if isinstance(value, dict):
        return {key: _without_gaps(inner) for key, inner in value.items() if inner is not None and inner != []}
    if isinstance(value, list):
        return [_without_gaps(inner) for inner in value]
    return value
