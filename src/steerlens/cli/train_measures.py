"""Subcommands of `steerlens train` that measure a finished pair: evaluation against thresholds, and its domain."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from steerlens.errors import UsageError
from steerlens.printable import printable


def print_lines(text: str) -> None:
    """Prints text with control characters escaped, at once."""
    sys.stdout.write(printable(text, lines=True) + "\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a pair against fixed thresholds: zero-shot naming, decoding, retrieval, colours, lenses, heads, speed.

    For a decoder of `steerlens train decoder`: re-encoding with the mean embedding subtracted, retrieval, transfer of
    steps towards scenes and along heads, sources never trained on, speed, and naming. The exit code is 0 if every
    threshold is met, else 1. Takes about five minutes on two CPU cores.
    """

    pair: Annotated[Path, tyro.conf.Positional]
    """Folder of the pair."""

    data: Path
    """Folder with prepared pictures, of which the held-out ones are used."""

    device: str = "cpu"
    """Device: cpu or cuda."""

    grid: Path | None = None
    """PNG file to write, with held-out scenes beside the pictures decoded from their embeddings."""

    json: Path | None = None
    """JSON file to write the figures to."""

    card: bool = False
    """Write the figures into the pair's model card and manifest."""

    quick: bool = False
    """Use a tenth of the pictures, for a first look rather than a report."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        from steerlens.storage import read_json, write_json
        from steerlens.training import evaluate

        if not (self.pair / "image_encoder").is_dir():
            raise UsageError(f"{self.pair} is not the folder of a pair.")
        report = evaluate(self.pair, self.data, device=self.device, grid=self.grid, quick=self.quick, say=print_lines)
        print_lines(report.table())
        if self.json is not None:
            write_json(self.json, report.to_dict())
        if self.card:
            from steerlens.training import write_card, write_decoder_card, write_manifest

            if "encoder" in read_json(self.pair / "manifest.json", "the pair"):
                write_decoder_card(self.pair, report)
            else:
                write_card(self.pair, self.data, None, report)
            write_manifest(self.pair)
        return 0 if report.passed else 1


@dataclass(frozen=True)
class Domain:
    """Measure the domain of a pair: statistics by which `steerlens lens` recognises pictures of another kind.

    Embeds and decodes scenes of the pictures that the pair was trained on, and writes domain.safetensors into its
    folder. Then counts how many scenes of held-out pictures would be warned of, and how many pictures of --foreign.
    For a pair trained on other pictures, see `steerlens doctor MODEL --reference PICTURES`.
    """

    pair: Annotated[str, tyro.conf.Positional]
    """Folder of the pair, or its name."""

    data: Path
    """Folder with prepared pictures."""

    scenes: int = 1500
    """Number of scenes."""

    foreign: Path | None = None
    """Folder of pictures of another kind, to count how many are recognised."""

    local: Path | None = None
    """Folder with the files of a named pair, to use instead of a download."""

    device: str = "cpu"
    """Device: cpu or cuda."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        from steerlens.cli.console import ProgressBar
        from steerlens.images import load_picture, picture_files
        from steerlens.loading import load
        from steerlens.progress import run_to_end
        from steerlens.training import count_warned, held_out_scenes, measure_domain, write_manifest
        from steerlens.zoo import REFERENCE, locate_pair, save_reference

        if self.scenes < 1:
            raise UsageError(f"--scenes must be at least 1, not {self.scenes}.")
        pair = load(self.pair, device=self.device, local=self.local)
        folder = locate_pair(self.pair, local=self.local).folder
        if folder is None:
            raise UsageError(
                f"{self.pair} is not a single folder; measure its domain with `steerlens doctor --reference`."
            )
        with ProgressBar() as progress:
            reference = run_to_end(measure_domain(pair, self.data, self.scenes), progress.show)
        save_reference(reference, folder / REFERENCE)
        if (folder / "manifest.json").is_file():
            write_manifest(folder)
        print_lines(f"{folder / REFERENCE}: {reference.count} {reference.pictures}")
        warned = [count_warned(pair, reference, "scenes of held-out pictures", held_out_scenes(self.data, 200))]
        if self.foreign is not None:
            images = [load_picture(path).image for path in picture_files(self.foreign)]
            warned.append(count_warned(pair, reference, f"pictures of {self.foreign}", images))
        for group in warned:
            print_lines(f"{group.outside} of {group.count} {group.kind} are warned of ({group.share:.1%})")
        return 0
