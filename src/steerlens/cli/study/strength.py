"""`steerlens study strength`: how hard to steer?"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from steerlens.cli.console import ProgressBar, emit_json, say
from steerlens.cli.study.command_line import command_line
from steerlens.cli.study.shared import StudySettings, kept, load_judge, load_study_pair, load_subjects

if TYPE_CHECKING:
    from steerlens.studies.strength.summary import StrengthSummary


@dataclass(frozen=True)
class Strength:
    """How hard to steer? Sweeps the strength, and recommends one.

    For every strength: how decoded pictures' and steered embeddings' similarities correlate with the effect of ablating
    the head, how well the decoder shows what was asked of it, and how far steered embeddings are from real ones. A
    strength is recommended on one half of the concepts, by a rule that is printed, and reported on the other.

    Examples:
      steerlens study strength --data data --out studies/strength
      steerlens study strength --images photos --model kandinsky-2.2 --heads-per-picture 96 --out strength
    """

    out: Path
    """Folder of the study."""

    settings: Annotated[StudySettings, tyro.conf.arg(name="")] = field(default_factory=StudySettings)

    rho: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
    """Relative strengths of the sweep: 1 adds as much as the final residual itself."""

    s: tuple[float, ...] = (5.0, 20.0, 40.0, 100.0)
    """Factors of the sweep: 40 multiplies what a head writes by 40, for every head alike."""

    count: int = 12
    """Pictures to report on, and as many of other concepts to choose on."""

    heads_per_picture: int | None = None
    """Heads whose pictures are decoded: a random sample with its share of every layer, the same for all pictures and
    strengths. Default: all heads."""

    seeds: int = 1
    """Seeds of the decoder over which scores are averaged, the same for all heads."""

    ablation: Literal["mean", "zero", "resample"] = "mean"
    """What replaces a head's write."""

    target: Literal["text", "other"] | None = None
    """What the signed effect is taken towards: the label's text, or another picture of the same concept. Default: the
    text where the model knows one."""

    min_fidelity: float = 0.5
    """What a recommended strength must keep of the clean pictures' mean fidelity, as a share of it."""

    max_atypical: float = 0.5
    """The share of steered embeddings that may lie farther from real ones than 95 % of real ones do."""

    references: int = 256
    """Real pictures, not studied themselves, that steered embeddings are held against."""

    judge: str | None = None
    """Another encoder (folder or hub id), which sees the decoded pictures as well: an outside judge."""

    def interrupted(self) -> str:
        """What a stopped study leaves behind."""
        return kept(self.out)

    def run(self) -> int:
        """Carries the command out and returns the exit code.

        Raises:
            UsageError: if a bound is no share, or the strengths make no sweep.
        """
        from steerlens.errors import UsageError
        from steerlens.lenses.strength import Strength as One
        from steerlens.progress import run_to_end
        from steerlens.studies.importance.measure import with_steps
        from steerlens.studies.strength.measure import StrengthOptions
        from steerlens.studies.strength.study import strength_study
        from steerlens.studies.strength.summary import Bounds

        if not (0 <= self.min_fidelity <= 1 and 0 <= self.max_atypical <= 1):
            raise UsageError("--min-fidelity and --max-atypical are shares between 0 and 1.")
        strengths = (*(One("rho", value) for value in self.rho), *(One("s", value) for value in self.s))
        with ProgressBar(quiet=self.settings.json) as progress:
            progress.stage("loading", 1)
            subjects = load_subjects(self.settings, self.count, self.count, n_reference=self.references)
            pair = load_study_pair(self.settings)
            judge = load_judge(self.judge, self.settings)
            progress.advance(1)
            decode = with_steps(pair.decoder.spec.defaults, self.settings.steps, self.settings.guidance)
            seeds = tuple(range(self.settings.seed, self.settings.seed + self.seeds))
            options = StrengthOptions(decode, strengths, seeds, self.ablation, self.heads_per_picture)
            bounds = Bounds(self.min_fidelity, self.max_atypical)
            events = strength_study(
                pair,
                subjects,
                options,
                self.out,
                target=self.target or "",
                bounds=bounds,
                judge=judge,
                command=command_line("strength", self),
            )
            summary = run_to_end(events, progress.show)
        if self.settings.json:
            emit_json(summary.to_json())
        else:
            _tell(summary, self.out)
        return 0


def _tell(summary: "StrengthSummary", folder: Path) -> None:
    from steerlens.studies.shared.caution import caution
    from steerlens.studies.strength.tables import DECODED

    say(
        f"{summary.n_pictures} pictures of {summary.n_concepts} concepts, {summary.n_decoded} of {summary.n_heads} "
        f"heads decoded; effect: {summary.main}"
    )
    say(f"clean pictures: fidelity {summary.clean_fidelity}")
    found = {
        row.strength: row.estimate
        for row in summary.correlations
        if (row.score, row.compare, row.effect, row.statistic) == (DECODED, summary.target, summary.main, "spearman")
    }
    say(f"{'strength':10} {'correlation, decoded':24} {'fidelity':24} beyond 95 % of real embeddings")
    for point in summary.points:
        beyond = {kind: one.beyond.value for kind, one in point.typicality.items()}
        shares = f"nearest {beyond['nearest']:.0%}, Mahalanobis {beyond['mahalanobis']:.0%}"
        say(f"{point.strength:10} {found[point.strength]!s:24} {point.fidelity!s:24} {shares}")
    rule = summary.recommendation
    say(f"rule: {rule.rule}")
    if rule.strength is None:
        say("no strength of the sweep keeps to the bounds: none is recommended.")
    else:
        none = "" if rule.correlation is None or rule.correlation.excludes_zero else " (includes 0)"
        say(f"recommended: {rule.strength}, on other concepts {rule.correlation}{none}; default: {summary.default}")
        say(f"best where it was chosen: {rule.best}; not to be told from that: {', '.join(rule.runners_up) or 'none'}")
        say(f"decided by: the {rule.decided}")
    if warned := caution(min(summary.n_concepts, summary.n_chosen_concepts)):
        say(warned)
    say(f"figures, table and summary: {folder}")
