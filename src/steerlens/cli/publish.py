"""The command `steerlens runs publish`: a static site of runs, and its upload to the Hugging Face hub."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from steerlens.cli.console import ProgressBar, emit_json, plain_bytes, say
from steerlens.printable import counted

if TYPE_CHECKING:
    from steerlens.atlas import Atlas
    from steerlens.report.site import Site
    from steerlens.runs.hub import HubTarget, Upload

_MOST_LISTED = 20
"""Most files of an upload that are listed by name."""


@dataclass(frozen=True)
class Publish:
    """Write a static site of one or many runs, to be put on any web server or pages host.

    The index shows thumbnails of all inputs. Each input has a page of its own, and each head an address to share.
    With --to, the site is uploaded as a static Space and the runs as a data set, after you agree.

    Examples:
      steerlens runs publish steerlens-runs/cup-emoji --out site
      steerlens runs publish monday tuesday --out site --url https://example.org/atlas
      steerlens runs publish week --out site --to hub:ada/atlas --dry-run
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories to publish."""

    out: Path
    """Folder of the site."""

    title: str = ""
    """Title of the index. Default: what the pages show, in a few words."""

    url: str = ""
    """Address under which the site will stand. Other sites show pictures beside shared links only if it is given.
    Default: none."""

    to: str = ""
    """Place to upload to, hub:USER/NAME: the site becomes the static Space USER/NAME, the runs the data set USER/NAME.
    Says what it would upload first, and uploads nothing before you agree. Default: nowhere."""

    private: bool = False
    """With --to: create the Space and the data set as private ones."""

    dry_run: bool = False
    """With --to: write the site, list every file that would be uploaded, and stop."""

    yes: bool = False
    """With --to: upload without asking."""

    force: bool = False
    """Replace the files of a site in --out."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def interrupted(self) -> str:
        """Message about an interrupted publication."""
        return "The runs are unchanged; run the same command again with --force to go on."

    def run(self) -> int:
        """Writes the site, uploads it if wanted, and returns the exit code."""
        from steerlens.errors import UsageError
        from steerlens.progress import run_to_end
        from steerlens.report.site import publish_site
        from steerlens.runs.export import refuse_run

        if not self.to and (self.dry_run or self.yes or self.private):
            raise UsageError("--dry-run, --yes and --private are about an upload; add --to hub:USER/NAME.")
        refuse_run(self.out)
        target = self._target()
        runs = _load(self.runs)
        url = self.url or (target.site_url if target else "")
        with ProgressBar(quiet=self.json) as progress:
            events = publish_site(runs, self.out, url=url, title=self.title, force=self.force)
            site = run_to_end(events, progress.show)
        if target is None:
            self._tell_site(site)
            return 0
        return self._upload(target, runs, site)

    def _target(self) -> "HubTarget | None":
        if not self.to:
            return None
        from steerlens.runs.hub import HubTarget

        return HubTarget.parse(self.to)

    def _upload(self, target: "HubTarget", runs: "dict[str, Atlas]", site: "Site") -> int:
        from steerlens.progress import run_to_end
        from steerlens.runs.hub import prepared_upload

        with ProgressBar(quiet=self.json) as progress:
            upload = run_to_end(prepared_upload(runs, site, target, title=self.title), progress.show)
        with upload:
            if not self.json:
                _tell_upload(upload, every_file=self.dry_run)
            agreed = not self.dry_run and (self.yes or self._agrees(target))
            if agreed:
                with ProgressBar(quiet=self.json) as progress:
                    run_to_end(upload.send(private=self.private), progress.show)
            if self.json:
                emit_json({"site": asdict(site), "upload": upload.listing(), "uploaded": agreed})
            elif agreed:
                say(f"uploaded: {target.space_page} and {target.dataset_page}")
            else:
                say(f"nothing was uploaded; the site is in {self.out}")
        return 0

    def _agrees(self, target: "HubTarget") -> bool:
        """True if the user says so; nobody is asked where nobody can answer."""
        if self.json or not sys.stdin.isatty():
            say("to upload, add --yes", quiet=self.json)
            return False
        kind = "private" if self.private else "PUBLIC"
        return input(f"Upload to {target.name} as a {kind} Space and data set? [y/N] ").strip().lower() in ("y", "yes")

    def _tell_site(self, site: "Site") -> None:
        if self.json:
            emit_json(site)
            return
        pictures, inputs = counted(site.pictures, "picture"), counted(site.inputs, "input")
        say(f"{site.folder}: {pictures} of {inputs} of {counted(site.runs, 'run')}, {plain_bytes(site.bytes)}")
        say(f"to look at it: python -m http.server --directory {site.folder} --bind 127.0.0.1")


def _load(folders: tuple[Path, ...]) -> "dict[str, Atlas]":
    """Runs by the name of their folder; by the whole path where folders have the same name."""
    from steerlens.errors import UsageError
    from steerlens.runs import load_run

    if not folders:
        raise UsageError("no run was given; try: steerlens runs publish RUN --out SITE.")
    if len(set(folders)) < len(folders):
        raise UsageError("the same run was given twice; name each once.")
    names = [folder.absolute().name for folder in folders]
    labels = [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]
    return {label: load_run(folder) for label, folder in zip(labels, folders, strict=True)}


def _tell_upload(upload: "Upload", *, every_file: bool) -> None:
    for kind, files in upload.listing().items():
        most = len(files) if every_file else _MOST_LISTED
        say(f"{kind} {upload.target.name}: {len(files)} files, {plain_bytes(sum(files.values()))}")
        for name, size in list(files.items())[:most]:
            say(f"  {name}  {plain_bytes(size)}")
        if len(files) > most:
            say(f"  and {len(files) - most} more; --dry-run lists every file")
