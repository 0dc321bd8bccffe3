"""`steerlens study`: the experiments that ask whether the lenses' pictures tell the truth."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from steerlens.cli.console import Progress, emit_json, say
from steerlens.cli.study_decoder import Decoder
from steerlens.cli.study_overlay import Overlay
from steerlens.cli.study_shared import StudySettings, kept, load_judge, load_study_pair, load_subjects, show
from steerlens.cli.study_strength import Strength

if TYPE_CHECKING:
    from steerlens.studies.importance_summary import Summary


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
    """Pictures of other concepts, on which strength and comparison are chosen for each lens."""

    seeds: int = 2
    """Seeds of the decoder, the same for all heads."""

    ablation: Literal["mean", "zero", "resample"] = "mean"
    """What replaces a head's write in the main effect; the other two are reported beside it."""

    target: Literal["text", "other"] | None = None
    """What the signed effect is taken towards: the label's text, or another picture of the same concept. Default: the
    text where the model knows one."""

    judge: str | None = None
    """Another encoder (folder or hub id), which sees the decoded pictures as well: an outside judge."""

    def interrupted(self) -> str:
        """What a stopped study leaves behind."""
        return kept(self.out)

    def run(self) -> int:
        """Carries the command out and returns the exit code."""
        from steerlens.studies.importance import ImportanceOptions, with_steps
        from steerlens.studies.importance_study import importance_study

        with Progress(quiet=self.settings.json) as progress:
            progress.stage("loading", 1)
            subjects = load_subjects(self.settings, self.choose, self.count)
            pair = load_study_pair(self.settings)
            judge = load_judge(self.judge, self.settings)
            progress.advance(1)
            decode = with_steps(pair.decoder.spec.defaults, self.settings.steps, self.settings.guidance)
            seeds = tuple(range(self.settings.seed, self.settings.seed + self.seeds))
            options = ImportanceOptions(decode, seeds)
            events = importance_study(
                pair, subjects, options, self.out, ablation=self.ablation, target=self.target or "", judge=judge
            )
            summary = show(events, progress)
        if self.settings.json:
            emit_json(summary.to_json())
        else:
            _tell(summary, self.out)
        return 0


def _tell(summary: "Summary", folder: Path) -> None:
    size = f"{summary.n_pictures} pictures of {summary.n_concepts} concepts, {summary.n_heads} heads"
    say(f"{size}; effect: {summary.main}")
    for lens, choice in summary.choices.items():
        say(f"  {lens} goes with: {choice}")
    say("Spearman correlation over heads, mean over pictures, 95 % interval (with other pictures' effects):")
    for row in summary.rows:
        if row.effect == summary.main and row.statistic == "spearman":
            say(f"  {row.score:36} {row.estimate}  ({row.mismatched:+.2f})")
    say("steering minus diffusion, paired:")
    for name, estimate in summary.differences.items():
        say(f"  {name:36} {estimate}{'' if estimate.excludes_zero else '  (includes 0)'}")
    for name, estimate in summary.ceiling_share.items():
        say(f"  share of the ceiling, {name:14} {estimate}")
    say(f"figures, table and summary: {folder}")


@dataclass(frozen=True)
class Page:
    """Write the page of results from finished studies: a markdown page, their summaries and figures.

    Example: steerlens study page studies --out docs
    """

    studies: tyro.conf.Positional[Path]
    """Folder that holds the studies' folders: importance, overlay, strength, decoder, as far as they ran."""

    out: Path
    """Folder for studies.md, studies/NAME.json and images/studies/NAME-FIGURE.png."""

    def run(self) -> int:
        """Carries the command out and returns the exit code."""
        from steerlens.studies.page import write_page

        say(f"written: {write_page(self.studies, self.out)}")
        return 0


Command = (
    Annotated[Importance, tyro.conf.subcommand(name="importance")]
    | Annotated[Overlay, tyro.conf.subcommand(name="overlay")]
    | Annotated[Strength, tyro.conf.subcommand(name="strength")]
    | Annotated[Decoder, tyro.conf.subcommand(name="decoder")]
    | Annotated[Page, tyro.conf.subcommand(name="page")]
)
"""The subcommands of `steerlens study`."""
