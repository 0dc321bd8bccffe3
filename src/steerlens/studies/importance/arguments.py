"""Command-line options of the importance study."""

from dataclasses import dataclass
from typing import Literal

from steerlens.studies.shared.arguments import ComponentArguments


@dataclass(frozen=True)
class ImportanceArguments(ComponentArguments):
    """Does a head's picture show the effect of ablating that head (the paper's study 1)?

    Correlates the lenses' scores of every head and picture with the true effect of ablating that head, with intervals.
    Settings are chosen on some concepts and reported on others. The folder of the study keeps every measurement; the
    same command resumes a study that was stopped.

    Examples:
      steerlens study importance --data data --out studies/importance
      steerlens study importance --images photos --model kandinsky-2.2 --count 50 --out importance
      steerlens study importance --images photos --encoder facebook/dinov2-small --no-decoder --out importance
    """

    count: int | None = None
    """Pictures to report on. Default: 24, or as many as a small folder allows."""

    choose: int | None = None
    """Pictures of other concepts, on which each lens' setting and comparison are chosen; 0 for none. Default: 6, and
    none if the folder holds fewer than 16 pictures."""

    decoder: bool = True
    """Score requested embeddings alone and decode nothing: any encoder will do (--encoder), on any pictures."""

    seeds: int = 2
    """Seeds of the decoder, the same for all heads."""

    effect: Literal["total-signed", "total-unsigned", "direct-signed", "direct-unsigned"] | None = None
    """The main notion of importance, by which settings are chosen; all others are reported too. Total: on a real
    forward pass, where everything downstream reacts; direct: in the final residual alone. Signed: the similarity with
    the target that is lost; unsigned: the distance that the embedding moves, which follows the size of a head's
    write. Default: total-signed, or total-unsigned without a target."""

    ablation: Literal["mean", "zero", "resample"] = "mean"
    """Replacement of a head's write in the main effect: its mean over reference pictures, zero, or its write for a
    picture of another concept. The other two are reported too."""

    target: str | None = None
    """Target of signed effects: text (each label's), other (another picture of the same concept), or any other words:
    that text, for all pictures. Default: the labels' texts if the model knows them."""

    strengths: tuple[str, ...] = ("rho=1", "rho=0.5")
    """Strengths of the candidates, each of them plain, centred and with a neutral base: rho, the same share of the
    residual for all heads, or s, one factor for all heads. The Diffusion Lens gets as many settings."""

    judge: str | None = None
    """An outside judge: another encoder (folder or hub id) that embeds the decoded pictures too."""

    extras: bool = True
    """Decode only the plain and the chosen settings of each lens: a third to a half fewer pictures. By default,
    the study also decodes and reports settings that were not chosen: one factor for all heads, centred writes, a
    neutral base."""
