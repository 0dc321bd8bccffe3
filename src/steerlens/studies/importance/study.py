"""Entry of the importance study in the table of studies: its command, its summary and its report."""

from typing import TYPE_CHECKING, Any

from steerlens.errors import UsageError
from steerlens.studies.importance.arguments import ImportanceArguments
from steerlens.studies.shared.arguments import refuse_unused
from steerlens.studies.shared.study import Report, Study

if TYPE_CHECKING:
    from steerlens.studies.importance.results import ImportanceSummary
    from steerlens.studies.shared.inputs import ModelLoader
    from steerlens.studies.shared.run import Experiment


class ImportanceStudy(Study[ImportanceArguments, "ImportanceSummary"]):
    """Head importance: the lenses' scores of heads compared with the true effects of ablating them."""

    name = "importance"
    title = "Head importance"
    question = "Does a head's picture show how ablating that head changes the embedding? The paper's first study."

    @property
    def arguments(self) -> type[ImportanceArguments]:
        """Options of the command line."""
        return ImportanceArguments

    def prepare(
        self, arguments: ImportanceArguments, command: str, load: "ModelLoader"
    ) -> "Experiment[Any, ImportanceSummary]":
        """Checks options, and loads pictures and models."""
        from steerlens.lenses import Strength
        from steerlens.studies.importance.experiment import importance_experiment
        from steerlens.studies.importance.options import ImportanceOptions
        from steerlens.studies.shared.candidates import diffusion_candidates, steering_candidates
        from steerlens.studies.shared.inputs import decode_options, decoder_seeds, load_subjects, study_sae
        from steerlens.studies.shared.targets import OTHER, TEXT
        from steerlens.zoo import check_text

        settings = arguments.settings
        sae = study_sae(arguments)
        if not arguments.decoder:
            refuse_unused(arguments, ("judge", "seeds", "extras"), "nothing is decoded with --no-decoder")
        if arguments.decoder and arguments.seeds < 2:
            raise UsageError(f"the study needs at least 2 seeds, not {arguments.seeds}, for the scores' reliability.")
        steering = steering_candidates([Strength.parse(strength) for strength in arguments.strengths])
        scope, _, sign = (arguments.effect or "total-").partition("-")
        subjects = load_subjects(settings, arguments.choose, arguments.count, choosing=True)
        named = settings.encoder is None and settings.local is None and not settings.model.startswith("bridge:")
        if arguments.target not in (None, TEXT, OTHER) and named:
            check_text(settings.model, arguments.target)
        models = load(settings, arguments.judge, decoder=arguments.decoder)
        options = ImportanceOptions(
            decode_options(models.pair, settings),
            decoder_seeds(settings, arguments.seeds),
            steering=steering,
            diffusion=diffusion_candidates(len(steering)),
            extras=arguments.extras,
            decoding=arguments.decoder,
            sae=sae,
            features=arguments.features,
            neurons=arguments.neurons,
        )
        return importance_experiment(
            models.pair,
            subjects,
            options,
            scope="direct" if scope == "direct" else "total",
            signed=None if not sign else sign == "signed",
            ablation=arguments.ablation,
            target=arguments.target or "",
            judge=models.judge,
            command=command,
        )

    @property
    def report(self) -> "Report[ImportanceSummary]":
        """Functions that read and report its summary."""
        from steerlens.studies.importance.conclusion import importance_claims, importance_conclusion
        from steerlens.studies.importance.figures import summary_figures
        from steerlens.studies.importance.findings import importance_bars, importance_findings
        from steerlens.studies.importance.results import ImportanceSummary
        from steerlens.studies.importance.section import importance_section
        from steerlens.studies.importance.terminal import importance_lines

        return Report(
            summary=ImportanceSummary,
            model=lambda summary: summary.setup.model,
            lines=importance_lines,
            bars=importance_bars,
            findings=importance_findings,
            section=importance_section,
            conclusion=importance_conclusion,
            claims=importance_claims,
            opening=("How well each score tells a head's importance", "plain"),
            figures=summary_figures,
        ).worded(lambda summary: summary.setup.components)
