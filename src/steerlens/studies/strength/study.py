"""Entry of the strength study in the table of studies: its command, its summary and its report."""

from collections.abc import Generator
from typing import TYPE_CHECKING

from steerlens.errors import UsageError
from steerlens.studies.shared.study import Report, Study
from steerlens.studies.strength.arguments import StrengthArguments

if TYPE_CHECKING:
    from steerlens.progress import Progress
    from steerlens.studies.strength.results import StrengthSummary


class StrengthStudy(Study[StrengthArguments, "StrengthSummary"]):
    """Strength: a sweep, and a rule that recommends a value."""

    name = "strength"
    title = "Strength"
    question = "Which strength makes pictures show what a head does, while embeddings stay close to real ones?"

    @property
    def arguments(self) -> type[StrengthArguments]:
        """Options of the command line."""
        return StrengthArguments

    def run(self, arguments: StrengthArguments, command: str) -> "Generator[Progress, None, StrengthSummary]":
        """Loads models and pictures, and runs the study."""
        from steerlens.lenses import Strength
        from steerlens.progress import Progress
        from steerlens.studies.shared.inputs import (
            decode_options,
            decoder_seeds,
            load_judge,
            load_study_pair,
            load_subjects,
        )
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
            decode_options(pair, settings),
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

    @property
    def report(self) -> "Report[StrengthSummary]":
        """Functions that read and report its summary."""
        from steerlens.studies.strength.conclusion import strength_claims, strength_conclusion
        from steerlens.studies.strength.findings import strength_bars, strength_findings
        from steerlens.studies.strength.results import StrengthSummary
        from steerlens.studies.strength.section import strength_section
        from steerlens.studies.strength.terminal import strength_lines

        return Report(
            summary=StrengthSummary,
            model=lambda summary: summary.model,
            lines=strength_lines,
            bars=strength_bars,
            findings=strength_findings,
            section=strength_section,
            conclusion=strength_conclusion,
            claims=strength_claims,
            opening=("Correlation, fidelity and typicality over the strength of steering", "sweep"),
        )
