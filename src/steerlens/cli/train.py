"""The command `steerlens train`: trains small encoders and decoders from named pictures, and evaluates them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from steerlens.cli.train_measures import Domain, Evaluate, print_lines
from steerlens.cli.train_sae import Sae
from steerlens.errors import UsageError

if TYPE_CHECKING:
    from steerlens.progress import Progress


def _show(events: Iterable[Progress]) -> None:
    from steerlens.training import StageRecord

    for event in events:
        if isinstance(event.payload, StageRecord):
            print_lines(event.payload.line())


def _check_options(minutes: float, workers: int, device: str) -> None:
    if minutes <= 0:
        raise UsageError(f"--minutes must be above 0, not {minutes:g}.")
    if workers < 1 or (workers > 1 and device != "cpu"):
        raise UsageError("--workers must be at least 1, and exactly 1 on a GPU.")


def _prepare(data: Path, pictures: Path | None, seed: int, sources: tuple[str, ...] = ("emoji",)) -> None:
    from steerlens.scenes import HELD_OUT, UNSEEN, choose_sources, count_table, fetch, prepare, prepared_folder
    from steerlens.training import embed_texts, make_text_table, save_text_table, text_file

    packages = choose_sources(sources)
    if pictures is None:
        fetch(data, packages)
    prepared, counts = prepare(data, prepared_folder(data), embed_texts, pictures=pictures, sources=packages, seed=seed)
    save_text_table(make_text_table([concept.name for concept in prepared.concepts]), text_file(data))
    print_lines(count_table(counts))
    held_out, unseen = (int((prepared.split == split).sum()) for split in (HELD_OUT, UNSEEN))
    print_lines(
        f"{len(prepared.pictures)} pictures of {len(prepared.concepts)} concepts in {len(prepared.styles)} styles; "
        f"held out: {held_out} pictures, and {unseen} of unseen concepts. Saved in {prepared_folder(data)}"
    )


@dataclass(frozen=True)
class Prepare:
    """Fetch and prepare pictures: clean names, find near-duplicates, hold some pictures out, and embed the names.

    Without `--pictures`, npm or apt-get fetches openly licensed packages; archives that are already in the data folder
    are reused. The default, `emoji`, has the three styles of the bundled pair (about 150 MB). `all` adds five more
    emoji styles and clip art to train on, and two sources for testing only (290 MB more). The held-out pictures of the
    three styles are always the same.
    """

    data: Path
    """Folder for archives and prepared pictures."""

    pictures: Path | None = None
    """Folder of your own pictures instead: `style/name.png` (several styles of the same names) or `name.png`."""

    sources: tuple[str, ...] = ("emoji",)
    """Packages to fetch: emoji, all, or some of noto, twemoji, fluent, emojione, fxemoji, noto-v1, fluent-flat,
    streamline, clipart, openmoji (test only), stamps (test only)."""

    seed: int = 0
    """Seed of the choice of held-out pictures."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        if self.pictures is not None and not self.pictures.is_dir():
            raise UsageError(f"--pictures {self.pictures} is not a folder.")
        if self.pictures is not None and self.sources != ("emoji",):
            raise UsageError(
                "--sources: no effect with --pictures, which replaces the packages. Leave one of them out."
            )
        _prepare(self.data, self.pictures, self.seed, self.sources)
        return 0


@dataclass(frozen=True)
class Emoji:
    """Train a pair from scratch: a CLIP-style ViT, an autoencoder, and an unCLIP UNet; then evaluate and export it.

    The stages run one after another, each for a share of `--minutes`. A checkpoint is written every 45 seconds: after
    an interruption, the same command with `--resume` continues. Sample grids of held-out scenes appear in OUT/grids,
    the finished pair in OUT/pair. To train on your own pictures, prepare them first with `steerlens train prepare`.
    """

    data: Path
    """Folder with prepared pictures; the emoji are fetched and prepared if there are none."""

    out: Path
    """Folder of the run."""

    minutes: float = 150.0
    """Total training time; two CPU cores need about 150 minutes."""

    resume: bool = False
    """Resume the run in OUT."""

    init: Path | None = None
    """Folder of a finished pair of the same sizes to continue from, for --minutes at half the learning rates."""

    fresh_encoder: bool = False
    """With --init: train the encoder from scratch and continue from the pair's decoder only, at full learning rates."""

    kept_encoder: bool = False
    """With --init: freeze the pair's encoder, and train only its UNet for all of --minutes."""

    device: str = "cpu"
    """Device: cpu or cuda."""

    workers: int = 1
    """Number of single-threaded processes that share every batch; on a CPU, one per core is fastest."""

    scenes: int = 65_536
    """Number of scenes whose embeddings and latents are cached for the UNet."""

    seed: int = 0
    """Seed of all random numbers."""

    evaluate: bool = True
    """Leave out the evaluation of the finished pair, and its figures in the model card."""

    def interrupted(self) -> str:
        """Message about the results that an interrupted run keeps."""
        return f"Trained weights are kept in {self.out}; add --resume to the same command to continue."

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        from steerlens.training import Recipe, export_pair, text_file, train_pair, write_card, write_manifest

        _check_options(self.minutes, self.workers, self.device)
        if self.scenes < Recipe().part:
            raise UsageError(f"--scenes {self.scenes}: scenes come in parts of {Recipe().part}; give at least as many.")
        if self.init is not None and not (self.init / "image_encoder").is_dir():
            raise UsageError(f"--init {self.init} is not the folder of a pair.")
        if not text_file(self.data).exists():
            _prepare(self.data, None, self.seed)
        recipe = Recipe(minutes=self.minutes, scenes=self.scenes, seed=self.seed)
        records = train_pair(
            self.data,
            self.out,
            recipe,
            device=self.device,
            resume=self.resume,
            workers=self.workers,
            init=self.init,
            fresh_encoder=self.fresh_encoder,
            kept_encoder=self.kept_encoder,
        )
        _show(records)
        pair = self.out / "pair"
        size = export_pair(self.data, self.out, pair, recipe)
        print_lines(f"exported {pair} ({size / 1e6:.1f} MB)")
        report = None
        if self.evaluate:
            from steerlens.training import evaluate

            report = evaluate(pair, self.data, device=self.device, grid=pair / "decoded.png")
            print_lines(report.table())
        write_card(pair, self.data, recipe, report)
        write_manifest(pair)
        return 0


@dataclass(frozen=True)
class Classifier:
    """Train a second encoder on the same scenes: a ViT that classifies the object, its companion and the background.

    It shares no text, loss or seed with a pair's encoder. It serves as a judge for the studies (`--judge
    OUT/classifier`), and as an encoder without a decoder for bridges (`steerlens bridge fit --from OUT/classifier`).
    A checkpoint is written every 45 seconds: after an interruption, the same command with `--resume` continues.
    """

    data: Path
    """Folder with prepared pictures; the emoji are fetched and prepared if there are none."""

    out: Path
    """Folder of the run; the finished classifier is in OUT/classifier."""

    minutes: float = 25.0
    """Training time."""

    resume: bool = False
    """Resume the run in OUT."""

    device: str = "cpu"
    """Device: cpu or cuda."""

    workers: int = 1
    """Number of single-threaded processes that share every batch; on a CPU, one per core is fastest."""

    seed: int = 1
    """Seed of all random numbers."""

    def interrupted(self) -> str:
        """Message about the results that an interrupted run keeps."""
        return f"Trained weights are kept in {self.out}; add --resume to the same command to continue."

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        from steerlens.scenes import load_prepared
        from steerlens.training import (
            CLASSIFIER_SETTINGS,
            Budget,
            export_classifier,
            keep_to_pictures,
            open_run,
            run_parallel,
            text_file,
            train_classifier,
        )

        _check_options(self.minutes, self.workers, self.device)
        open_run(self.out, self.resume)
        if not text_file(self.data).exists():
            _prepare(self.data, None, self.seed)
        pictures, settings, folder = load_prepared(self.data), CLASSIFIER_SETTINGS, self.out / "classifier"
        keep_to_pictures(self.out, pictures, resume=self.resume)
        arguments = (pictures, self.out, Budget(self.minutes), settings, self.device, self.seed, self.resume)
        _show(run_parallel(train_classifier, arguments, self.workers, self.out))
        table = export_classifier(
            pictures,
            self.out,
            folder,
            minutes=self.minutes,
            seed=self.seed,
            settings=settings,
            device=self.device,
        )
        print_lines(table)
        size = sum(file.stat().st_size for file in folder.iterdir())
        print_lines(f"exported {folder} ({size / 1e6:.1f} MB)")
        return 0


@dataclass(frozen=True)
class TrainDecoder:
    """Train a decoder for any encoder, so that its embeddings can be shown as pictures.

    The encoder stays frozen. It embeds scenes of the prepared pictures once, in shards; then a small UNet learns to
    draw scenes from embeddings, in the latent space of a finished pair's autoencoder. After an interruption, the same
    command with `--resume` continues. The finished pair is in OUT/pair, for `steerlens lens --model OUT/pair`.
    """

    encoder: str
    """Encoder: a folder, a hub id or the name of a model."""

    data: Path
    """Folder with prepared pictures; more sources are better (`steerlens train prepare --sources all`)."""

    out: Path
    """Folder of the run."""

    init: str | None = None
    """UNet to start from: emoji, the folder of a pair, or a .safetensors file. Only layers that read an embedding of
    another size are initialised at random."""

    autoencoder: str = "emoji"
    """Pair whose autoencoder to use; with --init, the pair that the UNet was trained with."""

    scenes: int = 65_536
    """Number of scenes to embed."""

    pixels: int | None = None
    """Side of the encoder's input in pixels. Default: the encoder's own preprocessing."""

    minutes: float = 150.0
    """Training time of the UNet, in addition to the time to embed the scenes."""

    resume: bool = False
    """Resume the run in OUT."""

    device: str = "cpu"
    """Device: cpu or cuda."""

    workers: int = 1
    """Number of single-threaded processes that share every batch; on a CPU, one per core is fastest."""

    seed: int = 0
    """Seed of all random numbers."""

    def interrupted(self) -> str:
        """Message about the results that an interrupted run keeps."""
        return f"Embeddings and weights are kept in {self.out}; add --resume to the same command to continue."

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        from steerlens.training import DecoderRecipe, export_decoder, train_decoder

        _check_options(self.minutes, self.workers, self.device)
        if self.scenes < 1:
            raise UsageError(f"--scenes must be above 0, not {self.scenes}.")
        recipe = DecoderRecipe(self.minutes, scenes=self.scenes, pixels=self.pixels, seed=self.seed)
        records = train_decoder(
            self.encoder,
            self.data,
            self.out,
            recipe,
            init=self.init,
            autoencoder=self.autoencoder,
            device=self.device,
            resume=self.resume,
            workers=self.workers,
        )
        _show(records)
        size = export_decoder(self.data, self.out, self.out / "pair", recipe)
        print_lines(f"exported {self.out / 'pair'} ({size / 1e6:.1f} MB)")
        return 0


Command = (
    Annotated[Classifier, tyro.conf.subcommand(name="classifier")]
    | Annotated[TrainDecoder, tyro.conf.subcommand(name="decoder")]
    | Annotated[Domain, tyro.conf.subcommand(name="domain")]
    | Annotated[Emoji, tyro.conf.subcommand(name="emoji")]
    | Annotated[Evaluate, tyro.conf.subcommand(name="evaluate")]
    | Annotated[Prepare, tyro.conf.subcommand(name="prepare")]
    | Annotated[Sae, tyro.conf.subcommand(name="sae")]
)
"""Subcommands of `steerlens train`."""
