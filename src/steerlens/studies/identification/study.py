"""Entry of the identification study in the table of studies: its command, its summary and its report."""

from typing import TYPE_CHECKING, Any

from steerlens.studies.identification.arguments import IdentificationArguments
from steerlens.studies.shared.arguments import refuse_more, refuse_unused
from steerlens.studies.shared.study import Report, Study

if TYPE_CHECKING:
    from steerlens.studies.identification.results import IdentificationSummary
    from steerlens.studies.shared.inputs import ModelLoader
    from steerlens.studies.shared.run import Experiment


class IdentificationStudy(Study[IdentificationArguments, "IdentificationSummary"]):
    """Identification: whether pictures carry what a head writes for this very input."""

    name = "identification"
    title = "Identification"
    question = "Which of several inputs did a head's steered picture come from?"

    @property
    def arguments(self) -> type[IdentificationArguments]:
        """Options of the command line."""
        return IdentificationArguments

    def prepare(
        self, arguments: IdentificationArguments, command: str, load: "ModelLoader"
    ) -> "Experiment[Any, IdentificationSummary]":
        """Checks options, and loads pictures and models."""
        from steerlens.lenses import Strength
        from steerlens.studies.identification.experiment import identification_experiment
        from steerlens.studies.identification.options import IdentificationOptions
        from steerlens.studies.shared.inputs import decode_options, decoder_seeds, load_subjects
        from steerlens.sweep import default_strength

        settings = arguments.settings
        if not arguments.decoder:
            refuse_unused(arguments, ("judge", "seeds", "foils"), "nothing is decoded with --no-decoder")
        strength = None if arguments.strength is None else Strength.parse(arguments.strength)
        subjects = load_subjects(settings, 0, arguments.count, choosing=True)
        models = load(settings, arguments.judge, decoder=arguments.decoder)
        spec = models.pair.encoder.spec
        refuse_more(arguments, "heads_per_picture", spec.n_layers * spec.n_heads, "heads in this encoder")
        options = IdentificationOptions(
            decode_options(models.pair, settings),
            strength or default_strength(models.pair.card),
            decoder_seeds(settings, arguments.seeds),
            arguments.foils,
            arguments.heads_per_picture,
        )
        return identification_experiment(models.pair, subjects, options, judge=models.judge, command=command)

    @property
    def report(self) -> "Report[IdentificationSummary]":
        """Functions that read and report its summary."""
        from steerlens.studies.identification.conclusion import identification_claims
        from steerlens.studies.identification.figures import summary_figures
        from steerlens.studies.identification.findings import identification_bars, identification_findings
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
            figures=summary_figures,
        )
