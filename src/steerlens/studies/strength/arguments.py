"""Command-line options of the strength study."""

from dataclasses import dataclass
from typing import Literal

from steerlens.studies.shared.arguments import StudyArguments


@dataclass(frozen=True)
class StrengthArguments(StudyArguments):
    """How hard to steer? Sweeps the strength and recommends a value.

    Measures for every strength: the correlation of decoded pictures' and steered embeddings' similarities with the
    effect of ablating the head; the fidelity of the decoder; and the distance of steered embeddings from real ones. A
    rule, which is printed, recommends a strength on one half of the concepts; it is reported on the other half.

    Examples:
      steerlens study strength --data data --out studies/strength
      steerlens study strength --images photos --model kandinsky-2.2 --heads-per-picture 96 --out strength
    """

    rho: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
    """Relative strengths of the sweep: 1 adds a part as large as the final residual."""

    s: tuple[float, ...] = (5.0, 20.0, 40.0, 100.0)
    """Factors of the sweep: 40 multiplies the write of every head by 40."""

    count: int = 12
    """Pictures to report on, and as many pictures of other concepts to choose on."""

    heads_per_picture: int | None = None
    """Number of heads to decode: a random sample with equal shares of the layers, the same for all pictures and
    strengths. Default: all heads."""

    seeds: int = 1
    """Seeds of the decoder over which scores are averaged, the same for all heads."""

    ablation: Literal["mean", "zero", "resample"] = "mean"
    """Replacement of a head's write."""

    target: Literal["text", "other"] | None = None
    """Target of the signed effect: the label's text, or another picture of the same concept. Default: the text if the
    model knows it."""

    min_fidelity: float = 0.5
    """Least mean fidelity of a recommended strength, as a share of the clean pictures' mean fidelity."""

    max_atypical: float = 0.5
    """Largest share of steered embeddings that may be farther from real embeddings than 95 % of real ones are."""

    references: int = 256
    """Real pictures with which steered embeddings are compared: not studied themselves, unless too few others are left;
    all there are if fewer."""

    judge: str | None = None
    """An outside judge: another encoder (folder or hub id) that embeds the decoded pictures too."""
