"""Files of the page, served from memory by names in a fixed list: no path of a request reaches the file system."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.responses import Response

_KINDS: Mapping[str, str] = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".html": "text/html",
    ".svg": "image/svg+xml",
}

_FOLDERS = (("steerlens.report", "report"), ("steerlens.app", "app"))
"""Packages whose assets the page reads, and the folder in its addresses."""


@cache
def page_files() -> Mapping[str, tuple[bytes, str]]:
    """Content and media type of every file by its name in addresses, read once."""
    found: dict[str, tuple[bytes, str]] = {}
    for package, folder in _FOLDERS:
        _add(found, files(package).joinpath("assets"), folder)
    loading = found.get("app/loading.html")
    return {**found, **({"loading.html": loading} if loading else {})}


def _add(found: dict[str, tuple[bytes, str]], folder: Traversable, name: str) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _add(found, entry, f"{name}/{entry.name}")
        else:
            kind = _KINDS.get(f".{entry.name.rpartition('.')[2]}")
            if kind is not None:
                found[f"{name}/{entry.name}"] = (entry.read_bytes(), kind)


def page_file(name: str) -> Response | None:
    """A file of the page; None if no file has this name."""
    entry = page_files().get(name)
    return None if entry is None else Response(entry[0], media_type=entry[1])
