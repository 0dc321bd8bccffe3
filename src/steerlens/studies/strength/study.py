"""The strength study as the command line and the page of results see it."""

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.errors import UsageError
from steerlens.studies.shared.study import Study
from steerlens.studies.strength.arguments import StrengthArguments

if TYPE_CHECKING:
    from steerlens.progress import Progress
    from steerlens.studies.shared.markdown import Bar, Finding
    from steerlens.studies.strength.results import StrengthSummary


class StrengthStudy(Study[StrengthArguments, "StrengthSummary"]):
    """Strength: a sweep, and a rule that recommends one."""

    name = "strength"
    title = "Strength"
    question = "How hard to steer, so that pictures say what a head does and embeddings stay typical of real ones?"

    @property
    def arguments(self) -> type[StrengthArguments]:
        """Options of the command line."""
        return StrengthArguments

    def run(self, arguments: StrengthArguments, command: str) -> "Generator[Progress, None, StrengthSummary]":
        """Loads models and pictures, and carries the study out."""
        from steerlens.lenses.strength import Strength
        from steerlens.progress import Progress
        from steerlens.studies.shared.bench import with_steps
        from steerlens.studies.shared.inputs import decoder_seeds, load_judge, load_study_pair, load_subjects
        from steerlens.studies.strength.experiment import strength_study
        from steerlens.studies.strength.options import Bounds, StrengthOptions

        settings = arguments.settings
        if not (0 <= arguments.min_fidelity <= 1 and 0 <= arguments.max_atypical <= 1):
            raise UsageError("--min-fidelity and --max-atypical are shares between 0 and 1.")
        strengths = (
            *(Strength("rho", value) for value in arguments.rho),
            *(Strength("s", value) for value in arguments.s),
        )
        yield Progress("loading", 0, 1)
        subjects = load_subjects(settings, arguments.count, arguments.count, n_reference=arguments.references)
        pair = load_study_pair(settings)
        judge = load_judge(arguments.judge, settings)
        yield Progress("loading", 1, 1)
        options = StrengthOptions(
            with_steps(pair.decoder.spec.defaults, settings.steps, settings.guidance),
            strengths,
            decoder_seeds(settings, arguments.seeds),
            arguments.ablation,
            arguments.heads_per_picture,
        )
        return (
            yield from strength_study(
                pair,
                subjects,
                options,
                arguments.out,
                target=arguments.target or "",
                bounds=Bounds(arguments.min_fidelity, arguments.max_atypical),
                judge=judge,
                command=command,
            )
        )

    def read(self, values: Mapping[str, Any], where: str) -> "StrengthSummary":
        """The summary from JSON values."""
        from steerlens.studies.strength.results import StrengthSummary

        return StrengthSummary.from_json(values, where)

    def lines(self, summary: "StrengthSummary", folder: Path) -> Sequence[str]:
        """Lines of results for the terminal."""
        from steerlens.studies.strength.terminal import strength_lines

        return strength_lines(summary, folder)

    def bars(self, summary: "StrengthSummary") -> "Sequence[Bar]":
        """Figures of the verdict page."""
        from steerlens.studies.strength.findings import strength_bars

        return strength_bars(summary)

    def findings(self, summary: "StrengthSummary") -> "Sequence[Finding]":
        """Findings in words."""
        from steerlens.studies.strength.findings import strength_findings

        return strength_findings(summary)

    def section(self, summary: "StrengthSummary") -> str:
        """Tables and figures of the study's page."""
        from steerlens.studies.strength.section import strength_section

        return strength_section(summary)
