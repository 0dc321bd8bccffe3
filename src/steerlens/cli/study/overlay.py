"""`steerlens study overlay`: does ablating heads in a lens' order make an overlay leave the picture?"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from steerlens.cli.console import ProgressBar, emit_json, say
from steerlens.cli.study.command_line import command_line
from steerlens.cli.study.shared import StudySettings, kept, load_judge, load_study_pair

if TYPE_CHECKING:
    from steerlens.studies.overlay.pictures import OverlaySet, Placing
    from steerlens.studies.overlay.summary import RemovalSummary


@dataclass(frozen=True)
class Overlay:
    """Does ablating heads in a lens' order make an overlay leave the picture? (The paper's study 2.)

    An overlay is pasted onto base pictures. Heads are ordered by how much of the overlay the lens' picture of each
    shows, and ablated in that order, more and more of them together, each replaced by what it writes for the base
    without the overlay. Beside it: true single effects, a greedy reference, attribution patching, random orders.

    Examples:
      steerlens study overlay --data data --out studies/overlay
      steerlens study overlay --bases photos --overlays flowers --model kandinsky-2.2 --out overlay
    """

    out: Path
    """Folder of the study."""

    settings: Annotated[StudySettings, tyro.conf.arg(name="")] = field(default_factory=StudySettings)

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
    """How hard candidates are steered, each of them plain, centred and from a neutral base: rho, the same share of the
    residual for all heads, or s, one factor for all heads as in the paper. The Diffusion Lens gets as many settings."""

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

    def interrupted(self) -> str:
        """What a stopped study leaves behind."""
        return kept(self.out)

    def run(self) -> int:
        """Carries the command out and returns the exit code.

        Raises:
            UsageError: if pictures, places, sizes or opacities are missing, too few, or make no sense.
        """
        from steerlens.lenses.strength import Strength
        from steerlens.progress import run_to_end
        from steerlens.studies.importance.measure import with_steps
        from steerlens.studies.overlay.measure import RemovalOptions
        from steerlens.studies.overlay.study import removal_study
        from steerlens.studies.shared.candidates import diffusion_candidates, steering_candidates

        steering = steering_candidates([Strength.parse(strength) for strength in self.strengths])
        with ProgressBar(quiet=self.settings.json) as progress:
            progress.stage("loading", 1)
            overlays = self._pairs()
            pair = load_study_pair(self.settings)
            judge = load_judge(self.judge, self.settings)
            progress.advance(1)
            decode = with_steps(pair.decoder.spec.defaults, self.settings.steps, self.settings.guidance)
            options = RemovalOptions(
                decode,
                self.settings.seed,
                self.ablation,
                steering,
                diffusion_candidates(len(steering)),
                seeds=self.seeds,
            )
            events = removal_study(
                pair, overlays, options, self.out, judge=judge, command=command_line("overlay", self)
            )
            summary = run_to_end(events, progress.show)
        if self.settings.json:
            emit_json(summary.to_json())
        else:
            _tell(summary, self.out)
        return 0

    def _pairs(self) -> "OverlaySet":
        from steerlens.errors import UsageError
        from steerlens.studies.overlay.pictures import folder_pairs
        from steerlens.studies.overlay.scenes import scene_pairs

        if self.settings.images is not None:
            raise UsageError("the overlay study takes --bases and --overlays, or --data; not --images.")
        if (self.bases is None) != (self.overlays is None):
            raise UsageError("--bases and --overlays go together.")
        if self.bases is not None and self.settings.data is not None:
            raise UsageError("give either --bases and --overlays, or --data, not both.")
        if min(self.count, self.choose) < 2:
            raise UsageError("a study needs at least 2 pairs to choose on and 2 to report on.")
        placing = self._placing()
        seed, counts = self.settings.seed, (self.choose, self.count)
        if self.bases is None or self.overlays is None:
            if self.settings.data is None:
                raise UsageError(
                    "the overlay study needs pictures: give --bases FOLDER --overlays FOLDER, or for scenes of the "
                    "bundled pair --data DIR, prepared with: steerlens train prepare --data DIR"
                )
            return scene_pairs(self.settings.data, *counts, seed=seed, placing=placing)
        return folder_pairs(self.bases, self.overlays, *counts, seed=seed, placing=placing)

    def _placing(self) -> "Placing":
        from steerlens.studies.overlay.pictures import Placing

        return Placing(self.place, _range("--size", self.size), _range("--opacity", self.opacity))


def _range(option: str, values: tuple[float, ...]) -> tuple[float, float]:
    from steerlens.errors import UsageError

    if len(values) not in (1, 2):
        raise UsageError(f"{option} takes one number, or two to draw it between, not {len(values)}.")
    return values[0], values[-1]


def _tell(summary: "RemovalSummary", folder: Path) -> None:
    from steerlens.studies.shared.caution import caution

    say(f"{summary.n_pairs} pairs, {summary.n_heads} heads, {summary.ablation} ablation")
    for lens, choice in summary.choices.items():
        say(f"  {lens} goes with: {choice}")
    say("normalised area over the first quarter of heads (0 random, 1 greedy reference), 95 % interval over pairs:")
    say(f"  {'':36} {'of the objective':22} of the projection")
    for row in summary.orders:
        say(f"  {row.name:36} {row.area!s:22} {row.projection}")
    low, high = summary.random_range
    say(f"  {'single random orders':36} {low:+.2f} to {high:+.2f}")
    say("paired differences:")
    for name, estimate in summary.differences.items():
        say(f"  {name:46} {estimate}{'' if estimate.excludes_zero else '  (includes 0)'}")
    say("similarity with overlay and base, none ablated, and after a quarter of the heads:")
    start = [
        summary.curves[f"similarity with the {side}"]["steering, chosen"].values[0] for side in ("overlay", "base")
    ]
    say(f"  {'none':32} {start[0]:+.2f} {start[1]:+.2f}")
    for name, left in summary.left.items():
        say(f"  {name:32} {left['similarity with the overlay']:+.2f} {left['similarity with the base']:+.2f}")
    if summary.judge is not None:
        compared = "; ".join(f"{lens}, chosen, with {words}" for lens, words in summary.judged_by.items())
        say(f"judged by {summary.judge.name} (weights {summary.judge.sha256[:12]}): compares {compared}")
    for warned in (caution(summary.n_concepts), summary.note):
        if warned:
            say(warned)
    say(f"figures, table and summary: {folder}")
