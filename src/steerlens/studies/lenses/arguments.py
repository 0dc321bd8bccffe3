"""Command-line options of the study of candidate lenses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steerlens.studies.shared.arguments import StudyArguments


@dataclass(frozen=True)
class LensesArguments(StudyArguments):
    """Which way of showing a head says best what ablating it does to any name?

    Compares three lenses: one steered picture; a contrast pair, steered towards and away from the write; and real
    pictures, the nearest of a bank to the changed embedding and to the opposite change. Each is scored by the names it
    gains, and correlated with the effect of ablating the head on every name. Settings are chosen on some concepts and
    reported on others. Also reports how much of a requested change the decoder returns, towards scenes and heads.

    Examples:
      steerlens study lenses --data data --out studies/lenses
      steerlens study lenses --images photos --bank index --model kandinsky-2.2 --heads-per-picture 96 --out lenses
    """

    count: int = 20
    """Pictures to report on."""

    choose: int = 4
    """Pictures of other concepts, on which each lens' setting is chosen."""

    decoder: bool = True
    """Score requested embeddings and real pictures alone and decode nothing: any encoder will do (--encoder), on any
    pictures."""

    strengths: tuple[str, ...] = ("rho=0.5", "rho=1")
    """Strengths to choose from."""

    neighbours: tuple[int, ...] = (5, 20)
    """Numbers of real pictures on each side to choose from."""

    bank: Path | None = None
    """Index of real pictures (steerlens neighbours index). Default: training pictures of --data; without either, real
    pictures are left out."""

    bank_size: int = 4096
    """Pictures of the bank, at most."""

    names: int | None = None
    """Number of names towards which effects are measured: a random sample. Default: all that the pair knows."""

    heads_per_picture: int | None = None
    """Number of heads: a random sample with equal shares of the layers, the same for all pictures. Default: all
    heads."""

    seeds: int = 1
    """Seeds of the decoder over which scores are averaged, the same for all heads."""

    ablation: Literal["mean", "zero", "resample"] = "mean"
    """Replacement of a head's write."""

    judge: str | None = None
    """An outside judge: another encoder (folder or hub id) that embeds decoded and real pictures too."""
