"""Command-line options of the decoder study."""

from dataclasses import dataclass
from typing import Literal

from steerlens.studies.shared.arguments import StudyArguments


@dataclass(frozen=True)
class DecoderArguments(StudyArguments):
    """How much does the decoder invent, and how many steps are worth their time?

    Decodes the same steered embeddings with several seeds at every setting of a sweep, and embeds the pictures again.
    Pictures of different seeds share only the requested embedding; the decoder invents the rest. A setting is good
    enough if its ranking of heads agrees with that of a reference with many steps nearly as well as the reference's
    seeds agree with each other.

    Examples:
      steerlens study decoder --data data --out studies/decoder
      steerlens study decoder --images photos --model kandinsky-2.2 --heads 12 --out decoder
    """

    count: int = 4
    """Pictures, at least 4."""

    heads: int = 24
    """Number of heads to decode for each picture: a random sample with equal shares of the layers."""

    strength: str | None = None
    """Strength of the steering, such as rho=1 or s=40. Default: the model's own."""

    target: Literal["input", "text", "other"] = "input"
    """Heads are ranked by their pictures' similarity with: the input, its label's text, or another picture of the
    concept."""

    seeds: int = 4
    """Seeds at every setting, the same for all heads."""

    sweep_steps: tuple[int, ...] = (2, 4, 6, 8, 12, 16, 25, 50)
    """Denoising steps to compare."""

    sweep_guidance: tuple[float, ...] = (1.0, 2.0, 4.0, 7.0)
    """Guidance scales to compare; 1 for none."""

    sweep_schedulers: tuple[Literal["ddpm", "ddim", "dpm++", "unipc", "pndm", "euler"], ...] = (
        "ddpm",
        "ddim",
        "dpm++",
        "unipc",
        "pndm",
        "euler",
    )
    """Samplers to compare."""

    sweep_intervals: tuple[tuple[float, float], ...] = ((0.0, 0.5), (0.0, 0.8), (0.2, 0.8))
    """Intervals with guidance, as shares of the steps from noise to picture, such as: 0 0.5 0 0.8."""

    reference_steps: int = 100
    """Steps of the reference."""

    reference_seeds: int = 4
    """Seeds of the reference, none of them shared with the settings."""

    share: float = 0.95
    """Share of the reference's agreement with itself that is enough."""

    judge: str | None = None
    """An outside judge: another encoder (folder or hub id) that embeds the decoded pictures too."""
