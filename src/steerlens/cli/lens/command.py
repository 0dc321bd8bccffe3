"""`steerlens lens`: look at pictures through every lens, and write a report."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from steerlens.cli.lens.settings import LensSettings


@dataclass(frozen=True)
class Command:
    """Show what each layer and each attention head of a Vision Transformer writes into the image embedding.

    Writes a run directory: report.html (opens offline), figures as PNG and SVG, and the results as parquet and
    safetensors. The same command goes on with a run that was interrupted; --resume makes sure that there is one.

    Examples:
      steerlens lens cup.png
      steerlens lens cup.png --target "hot beverage" --strength rho=2
      steerlens lens *.jpg --model kandinsky-2.2 --sites "resid_post,head.30-47.*" --out atlas
      steerlens lens cup.png --region L7H3:8,8,40,40 --group "late=head.6-7.*,mlp_out.7"
      steerlens lens cup.png --dry-run
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """The pictures to look at."""

    settings: Annotated[LensSettings, tyro.conf.arg(name="")] = field(default_factory=LensSettings)

    out: Path | None = None
    """The run directory. Default: steerlens-runs/PICTURE-MODEL in the current folder, with a mark behind it if any
    other option is given, so that the same command finds its run again and another does not meet it."""

    resume: bool = False
    """Go on with the run in --out, and refuse if there is none. Without it the same command goes on with its run as
    well, but begins one where there is none."""

    dry_run: bool = False
    """Print what would be done, and about how long it would take and how much memory and disk, and do nothing."""

    @property
    def folder(self) -> Path:
        """The run directory."""
        if self.out is not None:
            return self.out
        stem = self.images[0].stem.encode("utf-8", "replace").decode("utf-8")[:60]
        marked = self.settings.marked()
        beside = (*map(str, self.images[1:]), *([marked] if marked else []))
        mark = f"-{hashlib.sha256(repr(beside).encode()).hexdigest()[:6]}" if beside else ""
        return Path("steerlens-runs") / f"{stem}-{Path(self.settings.models.model).name}{mark}"

    def interrupted(self) -> str:
        """A sentence about what a stopped run leaves behind."""
        return "Nothing was written." if self.dry_run or not self.folder.exists() else kept(self.folder)

    def run(self) -> int:
        """Carries the command out and returns the exit code."""
        from steerlens.errors import UsageError
        from steerlens.images import load_pictures

        if not self.images:
            raise UsageError("no picture was given; try: steerlens lens PICTURE, or steerlens demo.")
        folder = self.folder
        if self.resume and not (folder / "manifest.json").is_file():
            raise UsageError(f"there is no run in {folder} to go on with; leave out --resume to begin one.")
        pictures = load_pictures(self.images)
        if self.dry_run:
            from steerlens.cli.lens.dry_run import dry_run

            return dry_run(self.settings, pictures, folder)
        from steerlens.cli.lens.run import look_and_report

        return look_and_report(self.settings, pictures, folder)


def kept(folder: Path) -> str:
    """A sentence about what a stopped run leaves in its folder."""
    return f"What was finished is kept in {folder}; the same command goes on from there."
