"""Command-line options of the overlay study."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steerlens.studies.shared.arguments import StudyArguments


@dataclass(frozen=True)
class OverlayArguments(StudyArguments):
    """Does ablating heads in a lens' order make an overlay leave the picture (the paper's study 2)?

    An overlay is pasted onto base pictures. Heads are ordered by how much of the overlay the lens' picture of each
    shows, and ablated in that order, more and more of them together, each replaced by what it writes for the base
    without the overlay. Beside it: true single effects, a greedy reference, attribution patching, random orders.

    Examples:
      steerlens study overlay --data data --out studies/overlay
      steerlens study overlay --bases photos --overlays flowers --model kandinsky-2.2 --out overlay
    """

    bases: Path | None = None
    """A folder of base pictures, in place of --data."""

    overlays: Path | None = None
    """A folder of overlays, which goes with --bases; PNGs with transparency serve best."""

    count: int = 24
    """Pairs to report on."""

    choose: int = 4
    """Pairs of other concepts, on which each lens chooses its strength and what its pictures are compared with."""

    seeds: int = 1
    """Seeds of the decoder over which scores are averaged, the same for all heads."""

    strengths: tuple[str, ...] = ("rho=1", "s=40")
    """Strengths of the candidates, each of them plain, centred and from a neutral base: rho, the same share of the
    residual for all heads, or s, one factor for all heads. The Diffusion Lens gets as many settings."""

    ablation: Literal["resample", "zero", "mean"] = "resample"
    """What replaces a head's write; `resample` takes it from the base without the overlay, the exact counterfactual."""

    place: tuple[float, float] | None = None
    """Centre of the overlay: x and y as shares of the base. Default: near a corner, drawn for each pair."""

    size: tuple[float, ...] = (0.35, 0.5)
    """The overlay's larger side as a share of the base's smaller one; two numbers to draw it between for each pair."""

    opacity: tuple[float, ...] = (1.0,)
    """Of the overlay, above 0 and up to 1; two numbers to draw it between for each pair."""

    judge: str | None = None
    """Another encoder (folder or hub id), which sees the decoded pictures as well: an outside judge."""
