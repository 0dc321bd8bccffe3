"""`steerlens study decoder`: what does the decoder add, and how many steps are worth their time?"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from steerlens.cli.console import ProgressBar, emit_json, say
from steerlens.cli.study.command_line import command_line
from steerlens.cli.study.shared import StudySettings, kept, load_judge, load_study_pair, load_subjects

if TYPE_CHECKING:
    from steerlens.studies.decoder.summary import DecoderSummary


@dataclass(frozen=True)
class Decoder:
    """What does the decoder invent, and how many steps are worth their time?

    Decodes the same steered embeddings with several seeds at every setting of a sweep, and embeds the pictures again.
    Pictures of different seeds share what was asked for; the rest is invented. A setting is good enough if it ranks
    heads as a reference with many steps does, as far as that agrees with itself.

    Examples:
      steerlens study decoder --data data --out studies/decoder
      steerlens study decoder --images photos --model kandinsky-2.2 --heads 12 --out decoder
    """

    out: Path
    """Folder of the study."""

    settings: Annotated[StudySettings, tyro.conf.arg(name="")] = field(default_factory=StudySettings)

    count: int = 4
    """Pictures, of at least 4."""

    heads: int = 24
    """Heads of each picture whose pictures are decoded: a random sample with its share of every layer."""

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

    def interrupted(self) -> str:
        """What a stopped study leaves behind."""
        return kept(self.out)

    def run(self) -> int:
        """Carries the command out and returns the exit code.

        Raises:
            UsageError: if there are fewer than 4 pictures, or the settings make no sweep.
        """
        from steerlens.errors import UsageError
        from steerlens.lenses.strength import Strength
        from steerlens.progress import run_to_end
        from steerlens.studies.decoder.measure import DecoderOptions, sweep
        from steerlens.studies.decoder.study import decoder_study
        from steerlens.studies.importance.measure import with_steps
        from steerlens.studies.shared.folder import read_json
        from steerlens.sweep.prepare import default_strength

        if self.count < 4:
            raise UsageError(f"the decoder study needs at least 4 pictures, not {self.count}.")
        strength = None if self.strength is None else Strength.parse(self.strength)
        with ProgressBar(quiet=self.settings.json) as progress:
            progress.stage("loading", 1)
            # There is nothing to choose: both halves are reported on.
            half = self.count // 2
            subjects = load_subjects(self.settings, half, self.count - half)
            pair = load_study_pair(self.settings)
            judge = load_judge(self.judge, self.settings)
            progress.advance(1)
            default = with_steps(pair.decoder.spec.defaults, self.settings.steps, self.settings.guidance)
            options = DecoderOptions(
                sweep(default, self.sweep_steps, self.sweep_guidance, self.sweep_schedulers, self.sweep_intervals),
                strength or default_strength(pair.card),
                self.target,
                tuple(range(self.settings.seed, self.settings.seed + self.seeds)),
                self.reference_steps,
                self.reference_seeds,
                self.heads,
            )
            command = command_line("decoder", self)
            events = decoder_study(pair, subjects, options, self.out, wanted=self.share, judge=judge, command=command)
            summary = run_to_end(events, progress.show)
        if self.settings.json:
            emit_json(summary.to_json())
        else:
            _tell(summary, read_json(self.out / "timings.json") or {}, self.out)
        return 0


def _tell(summary: "DecoderSummary", timings: Mapping[str, Any], folder: Path) -> None:
    from steerlens.studies.shared.caution import caution

    say(
        f"{summary.n_pictures} pictures, {summary.n_decoded} of {summary.n_heads} heads, {len(summary.seeds)} seeds; "
        f"steered with {summary.strength}, ranked by similarity with {summary.target}"
    )
    ceiling = summary.reference
    say(f"reference: {ceiling.name}, one seed against its others (the ceiling): {ceiling.seen.rank_correlation}")
    width = max(len(row.name) for row in summary.rows)
    say(f"{'setting':{width}} {'rank correlation':22} {'of the ceiling':22} {'agreement':22} seconds a picture")
    for row in summary.rows:
        seconds = timings.get(row.name, {}).get("seconds")
        cells = (row.seen.rank_correlation, row.seen.share, row.seen.agreement)
        words = " ".join(f"{cell!s:22}" for cell in cells)
        say(f"{row.name:{width}} {words} {'' if seconds is None else f'{seconds:.3f}'}")
    say(
        f"ranking without decoding, against the mean of the reference: {summary.asked}; of the ceiling of a ranking "
        f"without noise, {summary.asked_ceiling}: {summary.asked_share}"
    )
    unrelated = summary.rows[0].seen.unrelated
    say(
        f"1 - agreement over seeds (invented): {summary.invented}; different inputs would differ by {1 - unrelated:.2f}"
    )
    fewest, certain = ("none" if steps is None else steps for steps in (summary.cheapest_steps, summary.certain_steps))
    say(
        f"fewest steps whose share of the ceiling is {summary.wanted:g}: {fewest} as a point estimate, {certain} by "
        "the lower end of the interval"
    )
    if warned := caution(summary.n_concepts):
        say(warned)
    say(f"figures, table and summary: {folder}")
