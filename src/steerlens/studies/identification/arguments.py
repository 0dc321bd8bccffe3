"""Command-line options of the identification study."""

from dataclasses import dataclass

from steerlens.studies.shared.arguments import StudyArguments


@dataclass(frozen=True)
class IdentificationArguments(StudyArguments):
    """Which picture did a head's steered picture come from?

    Steers every picture with each head's own write and with the same head's write for another picture, from the same
    base, by the same relative strength, decoded from the same noise; and counts how often the own is closer to the
    input. Needs neither labels nor the heads' norms. A random direction, steered as strongly, is the control. The same
    command resumes a study that was stopped.

    Examples:
      steerlens study identification --data data --out studies/identification
      steerlens study identification --images photos --model kandinsky-2.2 --heads-per-picture 96 --out identification
      steerlens study identification --images photos --encoder facebook/dinov2-small --no-decoder --out identification
    """

    count: int = 20
    """Pictures."""

    decoder: bool = True
    """Compare requested embeddings alone and decode nothing: any encoder will do (--encoder), on any pictures."""

    foils: int = 1
    """Other pictures whose writes are decoded for each picture. Without decoding, all pictures are compared."""

    seeds: int = 1
    """Seeds of the decoder over which similarities are averaged, the same for all heads."""

    strength: str | None = None
    """Strength of the own write, such as rho=1 or s=40; the others are steered by the same share of the residual.
    Default: the pair's own strength."""

    heads_per_picture: int | None = None
    """Number of heads: a random sample with equal shares of the layers, the same for all pictures. Default: all
    heads."""

    judge: str | None = None
    """An outside judge: another encoder (folder or hub id) that embeds the decoded pictures too."""
