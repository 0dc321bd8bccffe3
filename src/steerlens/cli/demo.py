"""The command `steerlens demo`: the lenses on the bundled pair and a bundled picture."""

from dataclasses import dataclass
from pathlib import Path

from steerlens.cli.interrupted import kept
from steerlens.cli.lens.settings import DecodingSettings, LensSettings


@dataclass(frozen=True)
class Command:
    """Run the lenses on a bundled picture with the bundled pair: no download, about a minute on two cores.

    Equals `steerlens lens` with preset options: every layer under the Diffusion Lens, every head under the Diffusion
    Lens and the Steering Lens, and a random direction to compare each head with.

    Example:
      steerlens demo --out demo
    """

    out: Path = Path("steerlens-demo")
    """Run directory."""

    seed: int = 0
    """Seed of the decoder."""

    json: bool = False
    """Print the result as JSON on standard output, and nothing else."""

    def interrupted(self) -> str:
        """Message about the results that an interrupted run keeps."""
        return kept(self.out)

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        from steerlens.cli.lens.run import look_and_report
        from steerlens.zoo import sample_picture

        settings = LensSettings(decoding=DecodingSettings(seed=self.seed), json=self.json)
        command = f"steerlens demo --seed {self.seed}" if self.seed else "steerlens demo"
        return look_and_report(settings, [sample_picture()], self.out, command)
