"""Command-line options of the strength study."""

from dataclasses import dataclass
from typing import Literal

from steerlens.studies.shared.arguments import StudyArguments


@dataclass(frozen=True)
class StrengthArguments(StudyArguments):
    """How hard to steer? Sweeps the strength, and recommends one.

    For every strength: how similarities of decoded pictures and of steered embeddings correlate with the effect of
    ablating the head, how faithfully the decoder shows what was requested, and how far steered embeddings are from real
    ones. A strength is recommended on one half of the concepts, by a rule that is printed, and reported on the other.

    Examples:
      steerlens study strength --data data --out studies/strength
      steerlens study strength --images photos --model kandinsky-2.2 --heads-per-picture 96 --out strength
    """

    rho: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
    """Relative strengths of the sweep: 1 adds as much as the final residual itself."""

    s: tuple[float, ...] = (5.0, 20.0, 40.0, 100.0)
    """Factors of the sweep: 40 multiplies what a head writes by 40, for every head alike."""

    count: int = 12
    """Pictures to report on, and as many of other concepts to choose on."""

    heads_per_picture: int | None = None
    """Heads whose pictures are decoded: a random sample with equal shares of the layers, the same for all pictures and
    strengths. Default: all heads."""

    seeds: int = 1
    """Seeds of the decoder over which scores are averaged, the same for all heads."""

    ablation: Literal["mean", "zero", "resample"] = "mean"
    """What replaces a head's write."""

    target: Literal["text", "other"] | None = None
    """What the signed effect is taken towards: the label's text, or another picture of the same concept. Default: the
    text where the model knows one."""

    min_fidelity: float = 0.5
    """What a recommended strength must keep of the clean pictures' mean fidelity, as a share of it."""

    max_atypical: float = 0.5
    """The share of steered embeddings that may lie farther from real ones than 95 % of real ones do."""

    references: int = 256
    """Real pictures, not studied themselves, with which steered embeddings are compared."""

    judge: str | None = None
    """Another encoder (folder or hub id), which sees the decoded pictures as well: an outside judge."""
