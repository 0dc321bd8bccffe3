"""Entry of the strength study in the table of studies: its command, its summary and its report."""

from typing import TYPE_CHECKING, Any

from steerlens.errors import UsageError
from steerlens.studies.shared.arguments import refuse_more
from steerlens.studies.shared.study import Report, Study
from steerlens.studies.strength.arguments import StrengthArguments

if TYPE_CHECKING:
    from steerlens.studies.shared.inputs import ModelLoader
    from steerlens.studies.shared.run import Experiment
    from steerlens.studies.strength.results import StrengthSummary


class StrengthStudy(Study[StrengthArguments, "StrengthSummary"]):
    """Strength: a sweep, and a rule that recommends a value."""

    name = "strength"
    title = "Strength"
    question = "Which strength makes pictures show what a head does, while embeddings stay close to real ones?"
    of_settings = True

    @property
    def arguments(self) -> type[StrengthArguments]:
        """Options of the command line."""
        return StrengthArguments

    def prepare(
        self, arguments: StrengthArguments, command: str, load: "ModelLoader"
    ) -> "Experiment[Any, StrengthSummary]":
        """Checks options, and loads pictures and models."""
        from steerlens.lenses import Strength
        from steerlens.studies.shared.inputs import decode_options, decoder_seeds, load_subjects
        from steerlens.studies.strength.experiment import strength_experiment
        from steerlens.studies.strength.options import Bounds, StrengthOptions

        settings = arguments.settings
        if not (0 <= arguments.min_fidelity <= 1 and 0 <= arguments.max_atypical <= 1):
            raise UsageError("--min-fidelity and --max-atypical are shares between 0 and 1.")
        strengths = (
            *(Strength("rho", value) for value in arguments.rho),
            *(Strength("s", value) for value in arguments.s),
        )
        subjects = load_subjects(settings, arguments.count, arguments.count, n_reference=arguments.references)
        refuse_more(arguments, "references", len(subjects.reference), "pictures to compare with")
        models = load(settings, arguments.judge)
        spec = models.pair.encoder.spec
        refuse_more(arguments, "heads_per_picture", spec.n_layers * spec.n_heads, "heads in this encoder")
        options = StrengthOptions(
            decode_options(models.pair, settings),
            strengths,
            decoder_seeds(settings, arguments.seeds),
            arguments.ablation,
            arguments.heads_per_picture,
        )
        return strength_experiment(
            models.pair,
            subjects,
            options,
            target=arguments.target or "",
            bounds=Bounds(arguments.min_fidelity, arguments.max_atypical),
            judge=models.judge,
            command=command,
        )

    @property
    def report(self) -> "Report[StrengthSummary]":
        """Functions that read and report its summary."""
        from steerlens.studies.strength.conclusion import strength_claims, strength_conclusion
        from steerlens.studies.strength.figures import summary_figures
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
            opening=("Each strength: correlation, fidelity and share of atypical embeddings", "choice"),
            figures=summary_figures,
        )
