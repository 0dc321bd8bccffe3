"""Command-line options of the importance study."""

from dataclasses import dataclass
from typing import Literal

from steerlens.studies.shared.arguments import StudyArguments


@dataclass(frozen=True)
class ImportanceArguments(StudyArguments):
    """Does a head's picture say what ablating the head does (the paper's study 1)?

    For every picture and head: the lenses' scores on one side, the true effect of ablating that head on the other, and
    how the two correlate, with intervals. Settings are chosen on some concepts and reported on others. The folder of
    the study keeps every measurement; the same command goes on with a study that was stopped.

    Examples:
      steerlens study importance --data data --out studies/importance
      steerlens study importance --images photos --model kandinsky-2.2 --count 50 --out importance
    """

    count: int = 24
    """Pictures to report on."""

    choose: int = 6
    """Pictures of other concepts, on which setting and comparison are chosen for each lens."""

    seeds: int = 2
    """Seeds of the decoder, the same for all heads."""

    effect: Literal["total-signed", "total-unsigned", "direct-signed", "direct-unsigned"] = "total-signed"
    """The main notion of importance, by which settings are chosen; all others are reported beside it. Total: on a real
    forward pass, everything downstream reacting; direct: in the final residual alone. Signed: how much similarity with
    the target is lost; unsigned: how far the embedding moves, wherever to, which follows the size of a head's write."""

    ablation: Literal["mean", "zero", "resample"] = "mean"
    """What replaces a head's write in the main effect: its mean over reference pictures, nothing, or what it writes for
    a picture of another concept. The other two are reported beside it."""

    target: str | None = None
    """What signed effects are taken towards: text (each label's), other (another picture of the same concept), or any
    other words: that text, for all pictures. Default: the labels' texts where the model knows them."""

    strengths: tuple[str, ...] = ("rho=1", "s=40")
    """Strengths of the candidates, each of them plain, centred and from a neutral base: rho, the same share of the
    residual for all heads, or s, one factor for all heads. The Diffusion Lens gets as many settings."""

    judge: str | None = None
    """Another encoder (folder or hub id), which sees the decoded pictures as well: an outside judge."""

    extras: bool = True
    """Also decode settings that are reported whatever was chosen: one factor for all heads, as the paper steers;
    centred writes; a neutral base. Without them, the plain settings and the chosen ones alone: a third to a half fewer
    pictures."""
