"""`steerlens train`: make a small encoder-decoder pair from named pictures, and measure it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from steerlens.errors import UsageError
from steerlens.printable import printable

if TYPE_CHECKING:
    from steerlens.progress import Progress


def _say(text: str) -> None:
    sys.stdout.write(printable(text, lines=True) + "\n")
    sys.stdout.flush()


def _show(events: Iterable[Progress]) -> None:
    from steerlens.training.stage import StageRecord

    for event in events:
        if isinstance(event.payload, StageRecord):
            _say(event.payload.line())


def _check_options(minutes: float, workers: int, device: str) -> None:
    if minutes <= 0:
        raise UsageError(f"--minutes {minutes:g} is not above 0")
    if workers < 1 or (workers > 1 and device != "cpu"):
        raise UsageError("--workers is at least 1, and 1 on a GPU")


def _prepare(data: Path, pictures: Path | None, seed: int, sources: tuple[str, ...] = ("emoji",)) -> None:
    from steerlens.scenes import HELD_OUT, UNSEEN, choose_sources, count_table, fetch, prepare, prepared_folder
    from steerlens.training import embed_texts, make_text_table, save_text_table, text_file

    chosen = choose_sources(sources)
    if pictures is None:
        fetch(data, chosen)
    found, counts = prepare(data, prepared_folder(data), embed_texts, pictures=pictures, sources=chosen, seed=seed)
    save_text_table(make_text_table([concept.name for concept in found.concepts]), text_file(data))
    _say(count_table(counts))
    held, unseen = (int((found.split == split).sum()) for split in (HELD_OUT, UNSEEN))
    _say(
        f"{len(found.pictures)} pictures of {len(found.concepts)} concepts in {len(found.styles)} styles; "
        f"held out: {held} pictures, and {unseen} of unseen concepts. Saved in {prepared_folder(data)}"
    )


@dataclass(frozen=True)
class Prepare:
    """Fetch and prepare pictures: clean names, find near-duplicates, hold some out, and embed the names.

    Without `--pictures`, openly licensed packages are fetched by name with npm or apt-get; archives that lie in the
    data folder already are used as they are. The default, `emoji`, is the bundled pair's three styles (about 150 MB).
    `all` adds five more emoji styles and clip art to train on, and two sources that are never trained on (290 MB more).
    The held-out pictures of the three styles stay the same whatever is added.
    """

    data: Path
    """Folder for archives and prepared pictures."""

    pictures: Path | None = None
    """A folder of your own instead: `style/name.png` (several styles of the same names) or `name.png`."""

    sources: tuple[str, ...] = ("emoji",)
    """Packages to fetch: emoji, all, or some of noto, twemoji, fluent, emojione, fxemoji, noto-v1, fluent-flat,
    streamline, clipart, openmoji (test only), stamps (test only)."""

    seed: int = 0
    """Decides what is held out."""

    def run(self) -> int:
        """Carry the command out; returns the exit code."""
        if self.pictures is not None and not self.pictures.is_dir():
            raise UsageError(f"--pictures {self.pictures} is not a folder")
        _prepare(self.data, self.pictures, self.seed, self.sources)
        return 0


@dataclass(frozen=True)
class Emoji:
    """Train a pair from scratch: a CLIP-style ViT, an autoencoder, and an unCLIP UNet; then evaluate and export it.

    The stages run one after another for shares of `--minutes`. Everything is checkpointed every 45 seconds: after a
    kill, the same command with `--resume` goes on. Sample grids of held-out scenes appear in OUT/grids, the finished
    pair in OUT/pair. Pictures that `steerlens train prepare` has left in the data folder are used, so that a pair of
    your own pictures is made by preparing those first.
    """

    data: Path
    """Folder with prepared pictures; the emoji are fetched and prepared if there are none."""

    out: Path
    """Folder of the run."""

    minutes: float = 150.0
    """Training time in all; two CPU cores need about 150."""

    resume: bool = False
    """Go on with the run that lies in OUT."""

    init: Path | None = None
    """Folder of a finished pair of the same sizes to go on from, for another --minutes at half the learning rates."""

    fresh_encoder: bool = False
    """With --init: train the encoder from nothing and go on from the pair's decoder only, at full learning rates."""

    kept_encoder: bool = False
    """With --init: keep the pair's encoder as it is, and train its UNet alone for all of --minutes."""

    device: str = "cpu"
    """Where to train: cpu or cuda."""

    workers: int = 1
    """Processes with one thread each that share every batch; on a CPU, as many as there are cores is fastest."""

    scenes: int = 65_536
    """Scenes whose embeddings and latents are cached for the UNet."""

    seed: int = 0
    """Of everything random."""

    evaluate: bool = True
    """Evaluate the finished pair and write the figures into its model card."""

    def interrupted(self) -> str:
        """What an interrupted run leaves behind."""
        return f"{self.out} keeps what was trained; the same command with --resume goes on."

    def run(self) -> int:
        """Carry the command out; returns the exit code."""
        from steerlens.training import Recipe, export_pair, text_file, train_pair, write_card, write_manifest

        _check_options(self.minutes, self.workers, self.device)
        if self.init is not None and not (self.init / "image_encoder").is_dir():
            raise UsageError(f"--init {self.init} is not the folder of a pair")
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
        _say(f"exported {pair} ({size / 1e6:.1f} MB)")
        report = None
        if self.evaluate:
            from steerlens.training import evaluate

            report = evaluate(pair, self.data, device=self.device, grid=pair / "decoded.png")
            _say(report.table())
        write_card(pair, self.data, recipe, report)
        write_manifest(pair)
        return 0


@dataclass(frozen=True)
class Classifier:
    """Train a second encoder on the same scenes: a ViT that classifies the object, its companion and the background.

    It shares no text, loss or seed with a pair's encoder: a judge for the studies (`--judge OUT/classifier`), and an
    encoder without a decoder to build bridges from (`steerlens bridge fit --from OUT/classifier`). Everything is
    checkpointed every 45 seconds: after a kill, the same command with `--resume` goes on.
    """

    data: Path
    """Folder with prepared pictures; the emoji are fetched and prepared if there are none."""

    out: Path
    """Folder of the run; the finished classifier lies in OUT/classifier."""

    minutes: float = 25.0
    """Training time."""

    resume: bool = False
    """Go on with the run that lies in OUT."""

    device: str = "cpu"
    """Where to train: cpu or cuda."""

    workers: int = 1
    """Processes with one thread each that share every batch; on a CPU, as many as there are cores is fastest."""

    seed: int = 1
    """Of everything random."""

    def interrupted(self) -> str:
        """What an interrupted run leaves behind."""
        return f"{self.out} keeps what was trained; the same command with --resume goes on."

    def run(self) -> int:
        """Carry the command out; returns the exit code."""
        from steerlens.scenes import load_prepared
        from steerlens.training import (
            CLASSIFIER_SETTINGS,
            Budget,
            export_classifier,
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
        given = (pictures, self.out, Budget(self.minutes), settings, self.device, self.seed, self.resume)
        _show(run_parallel(train_classifier, given, self.workers, self.out))
        table = export_classifier(
            pictures,
            self.out,
            folder,
            minutes=self.minutes,
            seed=self.seed,
            settings=settings,
            device=self.device,
        )
        _say(table)
        size = sum(file.stat().st_size for file in folder.iterdir())
        _say(f"exported {folder} ({size / 1e6:.1f} MB)")
        return 0


@dataclass(frozen=True)
class Decoder:
    """Train a decoder for any encoder, so that what it sees can be shown as pictures.

    The encoder stays as it is. Scenes of the prepared pictures are embedded by it once, in shards that resume; then a
    small UNet learns to draw scenes from embeddings, in the latents of a finished pair's autoencoder. After a kill, the
    same command with `--resume` goes on. The finished pair lies in OUT/pair, for `steerlens lens --model OUT/pair`.
    """

    encoder: str
    """The encoder: a folder, a hub id or a card's name."""

    data: Path
    """Folder with prepared pictures; the more sources, the better (`steerlens train prepare --sources all`)."""

    out: Path
    """Folder of the run."""

    init: str | None = None
    """UNet to go on from: emoji, the folder of a pair, or a .safetensors file. Only layers that read an embedding of
    another size start anew."""

    autoencoder: str = "emoji"
    """Pair whose autoencoder is taken over; with --init, the one that the UNet was trained with."""

    scenes: int = 65_536
    """Scenes to embed."""

    pixels: int | None = None
    """Side of the picture that the encoder sees; by default its own preprocessing."""

    minutes: float = 150.0
    """Training time of the UNet, after the scenes are embedded."""

    resume: bool = False
    """Go on with the run that lies in OUT."""

    device: str = "cpu"
    """Where to train: cpu or cuda."""

    workers: int = 1
    """Processes with one thread each that share every batch; on a CPU, as many as there are cores is fastest."""

    seed: int = 0
    """Of everything random."""

    def interrupted(self) -> str:
        """What an interrupted run leaves behind."""
        return f"{self.out} keeps what was embedded and trained; the same command with --resume goes on."

    def run(self) -> int:
        """Carry the command out; returns the exit code."""
        from steerlens.training import DecoderRecipe, export_decoder, train_decoder

        _check_options(self.minutes, self.workers, self.device)
        if self.scenes < 1:
            raise UsageError(f"--scenes {self.scenes} is not above 0")
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
        _say(f"exported {self.out / 'pair'} ({size / 1e6:.1f} MB)")
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Measure a pair against its bars: zero-shot naming, decoding, retrieval, colours, lenses, heads, speed.

    Of a pair without a vocabulary of names (one that `steerlens train decoder` made), the decoder alone is measured.
    Exit code 0 if every bar is met, 1 otherwise. Takes about five minutes on two CPU cores.
    """

    pair: Annotated[Path, tyro.conf.Positional]
    """Folder of the pair."""

    data: Path
    """Data folder with prepared pictures: the held-out ones are needed."""

    device: str = "cpu"
    """Where to run: cpu or cuda."""

    grid: Path | None = None
    """Save a PNG of held-out scenes next to what was decoded from their embeddings."""

    json: Path | None = None
    """Save the figures as json."""

    card: bool = False
    """Write the figures into the pair's model card and manifest."""

    quick: bool = False
    """A tenth of the pictures: for a first look, not for a report."""

    def run(self) -> int:
        """Carry the command out; returns the exit code."""
        from steerlens.storage import write_json
        from steerlens.training import evaluate

        if not (self.pair / "image_encoder").is_dir():
            raise UsageError(f"{self.pair} is not the folder of a pair")
        report = evaluate(self.pair, self.data, device=self.device, grid=self.grid, quick=self.quick, say=_say)
        _say(report.table())
        if self.json is not None:
            write_json(self.json, report.to_dict())
        if self.card:
            from steerlens.training import write_card, write_manifest

            write_card(self.pair, self.data, None, report)
            write_manifest(self.pair)
        return 0 if report.passed else 1


Command = (
    Annotated[Classifier, tyro.conf.subcommand(name="classifier")]
    | Annotated[Decoder, tyro.conf.subcommand(name="decoder")]
    | Annotated[Emoji, tyro.conf.subcommand(name="emoji")]
    | Annotated[Evaluate, tyro.conf.subcommand(name="evaluate")]
    | Annotated[Prepare, tyro.conf.subcommand(name="prepare")]
)
"""The subcommands of `steerlens train`."""
