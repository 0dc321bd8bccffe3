"""Command-line options of the overlay study."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from steerlens.studies.shared.arguments import ComponentArguments


@dataclass(frozen=True)
class OverlayArguments(ComponentArguments):
    """Does ablating heads in a lens' order remove an overlay from the embedding (the paper's study 2)?

    Pastes an overlay onto base pictures. Orders heads by the amount of the overlay in the lens' picture of each head,
    and ablates more and more of them together in that order: each write is replaced by the head's write for the base
    without the overlay. Other orders for comparison: true single effects, a greedy reference, attribution patching,
    random orders.

    Examples:
      steerlens study overlay --data data --out studies/overlay
      steerlens study overlay --bases photos --overlays flowers --model kandinsky-2.2 --out overlay
      steerlens study overlay --bases photos --overlays flowers --model dinov2-small --no-decoder --out overlay
    """

    bases: Path | None = None
    """A folder of base pictures, in place of --data."""

    overlays: Path | None = None
    """A folder of overlays, together with --bases; preferably PNGs with transparency."""

    count: int = 24
    """Pairs to report on."""

    choose: int = 4
    """Pairs of other concepts, on which each lens' setting and comparison are chosen."""

    decoder: bool = True
    """Order heads by requested embeddings alone and decode nothing: any encoder will do (--encoder), on any
    pictures."""

    seeds: int = 1
    """Seeds of the decoder over which scores are averaged, the same for all heads."""

    strengths: tuple[str, ...] = ("rho=1", "rho=0.5")
    """Strengths of the candidates, each of them plain, centred and with a neutral base: rho, the same share of the
    residual for all heads, or s, one factor for all heads. The Diffusion Lens gets as many settings."""

    ablation: Literal["resample", "zero", "mean"] = "resample"
    """Replacement of a head's write; `resample` takes the write for the base without the overlay, the exact
    counterfactual."""

    place: tuple[float, float] | None = None
    """Centre of the overlay: x and y as shares of the base. Default: near a random corner for each pair."""

    size: tuple[float, ...] = (0.35, 0.5)
    """The overlay's larger side as a share of the base's smaller side; two numbers: drawn between them for each
    pair."""

    opacity: tuple[float, ...] = (1.0,)
    """Opacity of the overlay, above 0 and up to 1; two numbers: drawn between them for each pair."""

    judge: str | None = None
    """An outside judge: another encoder (folder or hub id) that embeds the decoded pictures too."""
