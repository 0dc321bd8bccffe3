"""Command-line options of the decoder study."""

from dataclasses import dataclass
from typing import Literal

from steerlens.studies.shared.arguments import StudyArguments


@dataclass(frozen=True)
class DecoderArguments(StudyArguments):
    """What does the decoder invent, and how many steps are worth their time?

    Decodes the same steered embeddings with several seeds at every setting of a sweep, and embeds the pictures again.
    Pictures of different seeds share the requested embedding; the rest is invented. A setting is good enough if it
    ranks heads as a reference with many steps does, as far as that agrees with itself.

    Examples:
      steerlens study decoder --data data --out studies/decoder
      steerlens study decoder --images photos --model kandinsky-2.2 --heads 12 --out decoder
    """

    count: int = 4
    """Pictures, of at least 4."""

    heads: int = 24
    """Heads of each picture whose pictures are decoded: a random sample with equal shares of the layers."""

    strength: str | None = None
    """How hard heads are steered, such as rho=1 or s=40. Default: what suits the model."""

    target: Literal["input", "text", "other"] = "input"
    """What pictures are compared with to rank heads: the input, its label's text, or another picture of the concept."""

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
    """Shares of the steps, from noise to picture, between which there is guidance, such as: 0 0.5 0 0.8."""

    reference_steps: int = 100
    """Steps of the reference."""

    reference_seeds: int = 4
    """Seeds of the reference, none of them shared with the settings."""

    share: float = 0.95
    """The share of the reference's agreement with itself that is enough."""

    judge: str | None = None
    """Another encoder (folder or hub id), which sees the decoded pictures as well: an outside judge."""
