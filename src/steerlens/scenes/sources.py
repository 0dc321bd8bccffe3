"""Openly licensed packages of pictures, and fetching them by name with the registries' ordinary clients."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steerlens.errors import SteerlensError, UsageError


@dataclass(frozen=True)
class Source:
    """One package of pictures, drawn in one style.

    Attributes:
        style: name of the style, and of the source on the command line.
        package: its name in the registry.
        version: version of the package; None takes the registry's current version.
        licence: SPDX identifier.
        attribution: authors of the pictures.
        layout: layout of the archive: raster files named by code point (`emoji`, `assets`), SVG named in words
            (`iconify`), or named raster files in folders of categories (`folders`).
        registry: registry of the package.
        trained: False for a source kept for tests, whose pictures are never trained on.
    """

    style: str
    package: str
    version: str | None
    licence: str
    attribution: str
    layout: Literal["emoji", "assets", "iconify", "folders"] = "iconify"
    registry: Literal["npm", "debian"] = "npm"
    trained: bool = True

    def archive(self, directory: Path) -> Path | None:
        """Returns the package's archive in a folder, or None if it is not there."""
        if self.registry == "npm":
            path = directory / f"{self.package.lstrip('@').replace('/', '-')}-{self.version}.tgz"
            return path if path.exists() else None
        return max(directory.glob(f"{self.package}_*.deb"), default=None)

    @property
    def label(self) -> str:
        """Package and version, as the registry's client takes them."""
        return self.package if self.version is None else f"{self.package}@{self.version}"

    def facts(self, archive: Path) -> dict[str, str]:
        """Returns the provenance of the pictures read from an archive, for cards and manifests."""
        version = self.version or archive.stem.split("_")[1].replace("%3a", ":")
        return {
            "style": self.style,
            "package": self.package,
            "version": version,
            "licence": self.licence,
            "attribution": self.attribution,
            "registry": self.registry,
            "use": "training" if self.trained else "outside test",
            "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
        }


EMOJI = (
    Source("noto", "emoji-datasource-google", "16.0.0", "Apache-2.0", "Noto Emoji, Google", "emoji"),
    Source(
        "twemoji",
        "emoji-datasource-twitter",
        "16.0.0",
        "CC-BY-4.0",
        "Twemoji, Twitter, Inc and other contributors",
        "emoji",
    ),
    Source(
        "fluent", "@lobehub/fluent-emoji-3d", "1.1.0", "MIT", "Fluent Emoji, Microsoft; packaged by LobeHub", "assets"
    ),
)
"""The three styles of the bundled pair; pictures are held out from the last style."""

WIDER = (
    Source("emojione", "@iconify-json/emojione", "1.2.3", "CC-BY-4.0", "Emoji One (EmojiTwo)"),
    Source("fxemoji", "@iconify-json/fxemoji", "1.2.2", "Apache-2.0", "FxEmojis, Mozilla"),
    Source("noto-v1", "@iconify-json/noto-v1", "1.2.5", "Apache-2.0", "Noto Emoji (v1), Google"),
    Source("fluent-flat", "@iconify-json/fluent-emoji-flat", "1.2.6", "MIT", "Fluent Emoji, Microsoft"),
    Source("streamline", "@iconify-json/streamline-emojis", "1.2.4", "CC-BY-4.0", "Streamline Emojis, Streamline"),
    Source(
        "clipart", "openclipart-png", None, "CC0-1.0", "Open Clip Art Library, its contributors", "folders", "debian"
    ),
)
"""More styles to train on."""

OUTSIDE_SOURCES = (
    # Copyleft art is only for tests: weights trained on it could not be published under a permissive licence.
    Source("openmoji", "@iconify-json/openmoji", "1.2.29", "CC-BY-SA-4.0", "OpenMoji", trained=False),
    Source(
        "stamps",
        "tuxpaint-stamps-default",
        None,
        "GPL-2.0-only",
        "Tux Paint stamps, the Tux Paint developers and contributors; many are photographs",
        "folders",
        "debian",
        trained=False,
    ),
)
"""Sources that are never trained on."""

SOURCES = (*EMOJI, *WIDER, *OUTSIDE_SOURCES)


def choose_sources(names: Sequence[str]) -> tuple[Source, ...]:
    """Selects sources by style, in the order of `SOURCES`; "emoji" means the bundled pair's three, "all" all sources.

    Raises:
        UsageError: a name is unknown, or nothing to train on is left.
    """
    groups = {"emoji": EMOJI, "all": SOURCES} | {source.style: (source,) for source in SOURCES}
    unknown = sorted(set(names) - set(groups))
    if unknown:
        raise UsageError(f"unknown source {', '.join(unknown)}: choose among {', '.join(groups)}")
    wanted = {source for name in names for source in groups[name]}
    if not any(source.trained for source in wanted):
        raise UsageError("these sources are kept for tests: name one to train on as well, such as emoji")
    layouts = {source.layout for source in wanted}
    if "iconify" in layouts and "emoji" not in layouts:
        raise UsageError("emoji drawn as SVG are matched to the names that noto carries: add noto, or emoji")
    return tuple(source for source in SOURCES if source in wanted)


def fetch(directory: Path, sources: Iterable[Source] = EMOJI) -> list[Path]:
    """Fetches missing packages with `npm pack` or `apt-get download`, and returns the archives.

    Raises:
        SteerlensError: the registry's client is missing or fails.
    """
    directory.mkdir(parents=True, exist_ok=True)
    archives: list[Path] = []
    for source in sources:
        if source.archive(directory) is None:
            _fetch(directory, source)
        archive = source.archive(directory)
        if archive is None:
            raise SteerlensError(f"{source.label} was fetched, but its archive is not in {directory}")
        archives.append(archive)
    return archives


def _fetch(directory: Path, source: Source) -> None:
    command = ["npm", "pack", source.label, "--silent"]
    if source.registry == "debian":
        command = ["apt-get", "download", source.package]
    if shutil.which(command[0]) is None:
        kind = "`npm pack` archive" if source.registry == "npm" else "Debian package (.deb)"
        raise SteerlensError(f"{command[0]} is missing: install it, or put the {kind} of {source.label} in {directory}")
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SteerlensError(f"{' '.join(command[:3])} failed: {done.stderr.strip()[-400:]}")
