"""The importance study as the command line and the page of results see it."""

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.errors import UsageError
from steerlens.studies.importance.arguments import ImportanceArguments
from steerlens.studies.shared.study import Study

if TYPE_CHECKING:
    from steerlens.progress import Progress
    from steerlens.studies.importance.results import ImportanceSummary
    from steerlens.studies.shared.markdown import Bar, Finding


class ImportanceStudy(Study[ImportanceArguments, "ImportanceSummary"]):
    """Head importance: the lenses' scores of heads against the true effects of ablating them."""

    name = "importance"
    title = "Head importance"
    question = "Does a head's picture say what ablating that head does to the embedding? The paper's first study."

    @property
    def arguments(self) -> type[ImportanceArguments]:
        """Options of the command line."""
        return ImportanceArguments

    def run(self, arguments: ImportanceArguments, command: str) -> "Generator[Progress, None, ImportanceSummary]":
        """Loads models and pictures, and carries the study out."""
        from steerlens.lenses.strength import Strength
        from steerlens.progress import Progress
        from steerlens.studies.importance.experiment import importance_study
        from steerlens.studies.importance.options import ImportanceOptions
        from steerlens.studies.shared.bench import with_steps
        from steerlens.studies.shared.candidates import diffusion_candidates, steering_candidates
        from steerlens.studies.shared.inputs import decoder_seeds, load_judge, load_study_pair, load_subjects

        settings = arguments.settings
        if arguments.seeds < 2:
            raise UsageError(f"the study needs at least 2 seeds, not {arguments.seeds}: it says how far scores repeat.")
        steering = steering_candidates([Strength.parse(strength) for strength in arguments.strengths])
        scope, _, sign = arguments.effect.partition("-")
        yield Progress("loading", 0, 1)
        subjects = load_subjects(settings, arguments.choose, arguments.count)
        pair = load_study_pair(settings)
        judge = load_judge(arguments.judge, settings)
        yield Progress("loading", 1, 1)
        options = ImportanceOptions(
            with_steps(pair.decoder.spec.defaults, settings.steps, settings.guidance),
            decoder_seeds(settings, arguments.seeds),
            steering=steering,
            diffusion=diffusion_candidates(len(steering)),
            extras=arguments.extras,
        )
        return (
            yield from importance_study(
                pair,
                subjects,
                options,
                arguments.out,
                scope="direct" if scope == "direct" else "total",
                signed=sign == "signed",
                ablation=arguments.ablation,
                target=arguments.target or "",
                judge=judge,
                command=command,
            )
        )

    def read(self, values: Mapping[str, Any], where: str) -> "ImportanceSummary":
        """The summary from JSON values."""
        from steerlens.studies.importance.results import ImportanceSummary

        return ImportanceSummary.from_json(values, where)

    def lines(self, summary: "ImportanceSummary", folder: Path) -> Sequence[str]:
        """Lines of results for the terminal."""
        from steerlens.studies.importance.terminal import importance_lines

        return importance_lines(summary, folder)

    def bars(self, summary: "ImportanceSummary") -> "Sequence[Bar]":
        """Figures of the verdict page."""
        from steerlens.studies.importance.findings import importance_bars

        return importance_bars(summary)

    def findings(self, summary: "ImportanceSummary") -> "Sequence[Finding]":
        """Findings in words."""
        from steerlens.studies.importance.findings import importance_findings

        return importance_findings(summary)

    def section(self, summary: "ImportanceSummary") -> str:
        """Tables and figures of the study's page."""
        from steerlens.studies.importance.section import importance_section

        return importance_section(summary)

    def model(self, summary: "ImportanceSummary") -> str:
        """The name of the pair."""
        return summary.setup.model
