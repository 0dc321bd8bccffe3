"""`steerlens study`: the experiments that ask whether the lenses' pictures tell the truth."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from steerlens.cli.console import ProgressBar, emit_json, say
from steerlens.cli.study.command_line import command_line
from steerlens.cli.study.shared import StudySettings, kept, load_judge, load_study_pair, load_subjects

if TYPE_CHECKING:
    from steerlens.studies.importance.results import Summary


@dataclass(frozen=True)
class Importance:
    """Does a head's picture say what ablating the head does? (The paper's study 1.)

    For every picture and head: the lenses' scores on one side, the true effect of ablating that head on the other, and
    how the two correlate, with intervals. Settings are chosen on some concepts and reported on others. The folder of
    the study keeps every measurement; the same command goes on with a study that was stopped.

    Examples:
      steerlens study importance --data data --out studies/importance
      steerlens study importance --images photos --model kandinsky-2.2 --count 50 --out importance
    """

    out: Path
    """Folder of the study."""

    settings: Annotated[StudySettings, tyro.conf.arg(name="")] = field(default_factory=StudySettings)

    count: int = 24
    """Pictures to report on."""

    choose: int = 6
    """Pictures of other concepts, on which setting and comparison are chosen for each lens."""

    seeds: int = 2
    """Seeds of the decoder, the same for all heads."""

    effect: Literal["total-signed", "total-unsigned", "direct-signed", "direct-unsigned"] = "total-signed"
    """The main notion of importance, by which settings are chosen; all others are reported beside it. Total: on a real
    forward pass, everything downstream reacting; direct: in the final residual alone. Signed: how much similarity with
    the target is lost; unsigned: how far the embedding moves, wherever to, which follows the size of a head's write."""

    ablation: Literal["mean", "zero", "resample"] = "mean"
    """What replaces a head's write in the main effect: its mean over reference pictures, nothing, or what it writes for
    a picture of another concept. The other two are reported beside it."""

    target: str | None = None
    """What signed effects are taken towards: text (each label's), other (another picture of the same concept), or any
    other words: that text, for all pictures. Default: the labels' texts where the model knows them."""

    strengths: tuple[str, ...] = ("rho=1", "s=40")
    """How hard candidates are steered, each of them plain, centred and from a neutral base: rho, the same share of the
    residual for all heads, or s, one factor for all heads as in the paper. The Diffusion Lens gets as many settings."""

    judge: str | None = None
    """Another encoder (folder or hub id), which sees the decoded pictures as well: an outside judge."""

    extras: bool = True
    """Also decode what is reported whatever was chosen: the paper's one factor for all heads, centred writes, and a
    neutral base. Without it, the plain settings and the chosen ones alone: a third to a half fewer pictures."""

    def interrupted(self) -> str:
        """What a stopped study leaves behind."""
        return kept(self.out)

    def run(self) -> int:
        """Carries the command out and returns the exit code."""
        from steerlens.errors import UsageError
        from steerlens.lenses.strength import Strength
        from steerlens.progress import run_to_end
        from steerlens.studies.importance.measure import ImportanceOptions, with_steps
        from steerlens.studies.importance.study import importance_study
        from steerlens.studies.shared.candidates import diffusion_candidates, steering_candidates

        if self.seeds < 2:
            raise UsageError(f"the study needs at least 2 seeds, not {self.seeds}: it says how far scores repeat.")
        steering = steering_candidates([Strength.parse(strength) for strength in self.strengths])
        scope, _, sign = self.effect.partition("-")

        with ProgressBar(quiet=self.settings.json) as progress:
            progress.stage("loading", 1)
            subjects = load_subjects(self.settings, self.choose, self.count)
            pair = load_study_pair(self.settings)
            judge = load_judge(self.judge, self.settings)
            progress.advance(1)
            decode = with_steps(pair.decoder.spec.defaults, self.settings.steps, self.settings.guidance)
            options = ImportanceOptions(
                decode,
                tuple(range(self.settings.seed, self.settings.seed + self.seeds)),
                steering=steering,
                diffusion=diffusion_candidates(len(steering)),
                extras=self.extras,
            )
            events = importance_study(
                pair,
                subjects,
                options,
                self.out,
                scope="direct" if scope == "direct" else "total",
                signed=sign == "signed",
                ablation=self.ablation,
                target=self.target or "",
                judge=judge,
                command=command_line("importance", self),
            )
            summary = run_to_end(events, progress.show)
        if self.settings.json:
            emit_json(summary.to_json())
        else:
            _tell(summary, self.out)
        return 0


def _tell(summary: "Summary", folder: Path) -> None:
    from steerlens.studies.shared.caution import caution

    size = f"{summary.n_pictures} pictures of {summary.n_concepts} concepts, {summary.n_heads} heads"
    say(f"{size}; effect: {summary.main}{f' ({summary.setup.given!r})' if summary.setup.given else ''}")
    for note in summary.setup.notes:
        say(note)
    for lens, choice in summary.choices.decoded.items():
        say(f"  {lens} goes with: {choice}; not decoded: {summary.choices.asked[lens]}")
    say("Spearman correlation over heads, mean over pictures, 95 % interval (with other pictures' effects):")
    shown = [row for row in summary.rows if row.effect == summary.main and row.statistic == "spearman"]
    for row in shown:
        say(f"  {row.score + (' *' if row.by_construction else ''):47} {row.estimate}  ({row.mismatched:+.2f})")
    if any(row.by_construction for row in shown):
        say("  * compared with the effect's own target before decoding: a check of consistency, and no evidence")
    say("steering minus diffusion, paired:")
    for one in summary.differences:
        if one.statistic == "spearman":
            effect = "" if one.effect == summary.main else f"  ({one.effect})"
            zero = "" if one.estimate.excludes_zero else "  (includes 0)"
            say(f"  {one.name:47} {one.estimate}{zero}{effect}")
    for name, estimate in summary.ceiling_share.items():
        say(f"  {f'share of the ceiling, {name}':47} {estimate}")
    if warned := caution(summary.n_concepts):
        say(warned)
    say(f"figures, table and summary: {folder}")
