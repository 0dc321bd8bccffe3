"""The command `steerlens lens`: looks at pictures through every lens, and writes a report."""

import hashlib
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from steerlens.cli.interrupted import kept
from steerlens.cli.lens.settings import LensSettings


@dataclass(frozen=True)
class Command:
    """Show what each layer and attention head of a Vision Transformer writes into the image embedding.

    Writes a run directory: report.html (opens offline), figures as PNG and SVG, and the results as parquet and
    safetensors. To resume an interrupted run, give the same command again.

    Examples:
      steerlens lens sample
      steerlens lens sample --target "grinning face" --strength rho=2
      steerlens lens *.jpg --model kandinsky-2.2 --sites "resid_post,head.30-47.*" --out atlas
      steerlens lens sample --region L7H3:8,8,40,40 --group "late=head.6-7.*,mlp_out.7"
      steerlens lens photo.png --dry-run
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Pictures to look at; `sample` is a picture in the package."""

    settings: Annotated[LensSettings, tyro.conf.arg(name="")] = field(default_factory=LensSettings)

    out: Path | None = None
    """Run directory. Default: steerlens-runs/PICTURE-MODEL in the current folder, followed by a hash of any other
    options, so that the same command finds its run again and other commands get their own."""

    resume: bool = False
    """Resume the run in --out, and fail if there is none. Without --resume, the command resumes its run too, but
    starts a new run if there is none."""

    dry_run: bool = False
    """Print the plan and estimates of its time, memory and disk space, and stop."""

    @property
    def folder(self) -> Path:
        """Run directory, given or default."""
        if self.out is not None:
            return self.out
        text = self.images[0].stem.encode("utf-8", "replace").decode("utf-8")
        stem = "".join(character if character.isprintable() else "-" for character in text)[:60]
        marked = self.settings.marked()
        beside = (*map(str, self.images[1:]), *([marked] if marked else []))
        mark = f"-{hashlib.sha256(repr(beside).encode()).hexdigest()[:6]}" if beside else ""
        return Path("steerlens-runs") / f"{stem}-{Path(self.settings.models.model).name[:100]}{mark}"

    def interrupted(self) -> str:
        """Message about the results that an interrupted run keeps."""
        return "Nothing was written." if self.dry_run or not self.folder.exists() else kept(self.folder)

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        from steerlens.errors import UsageError
        from steerlens.images import load_pictures
        from steerlens.zoo import is_sample, sample_picture

        if not self.images:
            raise UsageError("no pictures were given; try: steerlens lens PICTURE, or steerlens lens sample.")
        folder = self.folder
        if self.resume and not (folder / "manifest.json").is_file():
            raise UsageError(f"there is no run in {folder} to resume; leave out --resume to start one.")
        pictures = load_pictures(sample_picture() if is_sample(path) else path for path in self.images)
        self._check_target()
        if self.dry_run:
            from steerlens.cli.lens.dry_run import dry_run

            return dry_run(self.settings, pictures, folder)
        from steerlens.cli.lens.run import look_and_report

        command = shlex.join(["steerlens", "lens", *map(str, self.images), *self.settings.words()])
        return look_and_report(self.settings, pictures, folder, command)

    def _check_target(self) -> None:
        """Refuses a target that is no picture and no known text, before models are loaded where that is possible."""
        from steerlens.sweep import read_target
        from steerlens.zoo import check_text

        models = self.settings.models
        if self.settings.sites.target is None:
            return
        target = read_target(self.settings.sites.target)
        replaced = (models.encoder, models.neighbours, models.local)
        if isinstance(target, str) and not any(replaced) and not models.model.startswith("bridge:"):
            check_text(models.model, target)
