"""The command `steerlens train sae`: trains a sparse autoencoder of the values at one site of an encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from steerlens.cli.console import ProgressBar
from steerlens.cli.train_measures import print_lines
from steerlens.errors import UsageError

if TYPE_CHECKING:
    from steerlens.progress import Progress
    from steerlens.training import SaePictures


@dataclass(frozen=True)
class Sae:
    """Train a sparse autoencoder of the values at one site of an encoder: batch-top-k, dead features revived.

    Computes the values once, in parts; then trains. After an interruption, the same command with `--resume` continues.
    The finished autoencoder is in OUT/NAME, in SAELens' layout, with its fidelity on pictures that were held out.
    """

    site: str
    """Where it reads: a site such as resid_post.8 or blocks.8.hook_resid_post, or embedding."""

    out: Path
    """Folder of the run."""

    model: str = "emoji"
    """Model: the name of a pair, a folder or a hub id of an encoder."""

    images: Path | None = None
    """Folder of pictures to train on, with subfolders."""

    data: Path | None = None
    """For the bundled pair, instead of --images: a data folder with prepared pictures (steerlens train prepare), of
    which scenes are drawn."""

    count: int = 5_000
    """Number of pictures; all of them if the folder holds fewer. A tenth is held out."""

    features: int | None = None
    """Number of features. Default: 8 times the width of the values."""

    k: int = 16
    """Mean number of active features of a value."""

    tokens: Literal["all", "cls", "patch"] = "all"
    """Tokens whose values are taken: all, cls (those that the embedding is read from), or patch."""

    per_picture: int = 0
    """Tokens drawn from each picture, which bounds memory: count x per-picture x width x 4 bytes. 0 for all of them."""

    minutes: float = 5.0
    """Training time, in addition to the time to compute the values."""

    steps: int | None = None
    """Number of steps, instead of --minutes."""

    batch: int = 1024
    """Values in a step."""

    rate: float = 1e-3
    """Learning rate."""

    name: str = "sae"
    """Name of the autoencoder: feature i is feature.NAME.i."""

    resume: bool = False
    """Resume the run in OUT."""

    device: str | None = None
    """Device: cpu or cuda. Default: CUDA if available, else the CPU."""

    seed: int = 0
    """Seed of the choice of pictures and of all random numbers."""

    def interrupted(self) -> str:
        """Message about the results that an interrupted run keeps."""
        return f"Values and weights are kept in {self.out}; add --resume to the same command to continue."

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        from steerlens.progress import run_to_end
        from steerlens.saes import EMBEDDING
        from steerlens.sites import Site
        from steerlens.training import Budget, SaeRecipe, SaeRun, StageRecord, run_sae
        from steerlens.zoo import locate_encoder, open_encoder

        if self.minutes <= 0 or (self.steps is not None and self.steps < 1):
            raise UsageError("--minutes and --steps must be above 0.")
        if self.rate <= 0:
            raise UsageError(f"--rate must be above 0, not {self.rate:g}.")
        if self.site.strip().endswith("hook_z"):
            raise UsageError(
                f"--site {self.site}: head values are not trained on here, only what they write; name attn_out.N or "
                "head.N.H."
            )
        place = EMBEDDING if self.site == EMBEDDING else Site.parse(self.site)
        if place == EMBEDDING and (self.tokens != "all" or self.per_picture):
            raise UsageError("--tokens and --per-picture: no effect, because an image embedding has no tokens.")
        pictures = self._pictures()
        with ProgressBar() as progress:
            progress.stage("loading", 1)
            encoder = open_encoder(locate_encoder(self.model), device=self.device, dtype="float32")
            width = encoder.spec.embedding_size if place == EMBEDDING else encoder.spec.width
            features = 8 * width if self.features is None else self.features
            recipe = SaeRecipe(features, self.k, self.batch, self.rate, seed=self.seed)
            run = SaeRun(place, recipe, Budget(self.minutes, self.steps), self.tokens, self.per_picture, self.name)
            progress.advance(1)

            def show(event: Progress) -> None:
                if isinstance(event.payload, StageRecord):
                    progress.say(event.payload.line())
                else:
                    progress.show(event)

            events = run_sae(encoder, self.model, pictures, run, self.out, resume=self.resume)
            sae, figures = run_to_end(events, show)
        print_lines(f"{sae}\n{figures}\nwrote {self.out / self.name}")
        return 0

    def _pictures(self) -> SaePictures:
        from steerlens.training import folder_of_pictures, scenes_of_data

        if (self.images is None) == (self.data is None):
            raise UsageError("give either --images FOLDER, or for scenes of the bundled pair --data DIR.")
        if self.count < 2 or self.per_picture < 0:
            raise UsageError("--count must be at least 2, and --per-picture cannot be negative.")
        if self.images is not None:
            return folder_of_pictures(self.images, self.count, self.seed)
        if self.data is None:
            raise UsageError("give --images or --data.")
        return scenes_of_data(self.data, self.count, self.seed)
