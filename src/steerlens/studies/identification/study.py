"""Entry of the identification study in the table of studies: its command, its summary and its report."""

from collections.abc import Generator
from typing import TYPE_CHECKING

from steerlens.studies.identification.arguments import IdentificationArguments
from steerlens.studies.shared.arguments import refuse_unused
from steerlens.studies.shared.study import Report, Study

if TYPE_CHECKING:
    from steerlens.progress import Progress
    from steerlens.studies.identification.results import IdentificationSummary


class IdentificationStudy(Study[IdentificationArguments, "IdentificationSummary"]):
    """Identification: whether pictures carry what a head writes for this very input."""

    name = "identification"
    title = "Identification"
    question = "Which of several inputs did a head's steered picture come from?"

    @property
    def arguments(self) -> type[IdentificationArguments]:
        """Options of the command line."""
        return IdentificationArguments

    def run(
        self, arguments: IdentificationArguments, command: str
    ) -> "Generator[Progress, None, IdentificationSummary]":
        """Loads models and pictures, and runs the study."""
        from steerlens.lenses import Strength
        from steerlens.progress import Progress
        from steerlens.studies.identification.experiment import identification_study
        from steerlens.studies.identification.options import IdentificationOptions
        from steerlens.studies.shared.inputs import (
            decode_options,
            decoder_seeds,
            load_judge,
            load_study_pair,
            load_subjects,
        )
        from steerlens.sweep import default_strength

        settings = arguments.settings
        if not arguments.decoder:
            refuse_unused(arguments, ("judge", "seeds", "foils"), "nothing is decoded with --no-decoder")
        strength = None if arguments.strength is None else Strength.parse(arguments.strength)
        yield Progress("loading", 0, 1)
        subjects = load_subjects(settings, 0, arguments.count, choosing=True)
        pair = load_study_pair(settings, decoder=arguments.decoder)
        judge = load_judge(arguments.judge, settings)
        yield Progress("loading", 1, 1)
        options = IdentificationOptions(
            decode_options(pair, settings),
            strength or default_strength(pair.card),
            decoder_seeds(settings, arguments.seeds),
            arguments.foils,
            arguments.heads_per_picture,
        )
        return (yield from identification_study(pair, subjects, options, arguments.out, judge=judge, command=command))

    @property
    def report(self) -> "Report[IdentificationSummary]":
        """Functions that read and report its summary."""
        from steerlens.studies.identification.findings import (
            identification_bars,
            identification_claims,
            identification_findings,
        )
        from steerlens.studies.identification.results import IdentificationSummary
        from steerlens.studies.identification.section import identification_section
        from steerlens.studies.identification.terminal import identification_lines

        return Report(
            summary=IdentificationSummary,
            model=lambda summary: summary.model,
            lines=identification_lines,
            bars=identification_bars,
            findings=identification_findings,
            section=identification_section,
            conclusion=lambda summary: summary.conclusion,
            claims=identification_claims,
            opening=("How often is the own write closer to the input?", "shares"),
        )
