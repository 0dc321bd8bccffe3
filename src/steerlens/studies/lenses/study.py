"""Entry of the study of candidate lenses in the table of studies: its command, its summary and its report."""

from typing import TYPE_CHECKING, Any

from steerlens.errors import UsageError
from steerlens.studies.lenses.arguments import LensesArguments
from steerlens.studies.shared.arguments import refuse_more, refuse_unused
from steerlens.studies.shared.study import Report, Study

if TYPE_CHECKING:
    from steerlens.studies.lenses.bank import PictureSource
    from steerlens.studies.lenses.results import LensesSummary
    from steerlens.studies.shared.inputs import ModelLoader
    from steerlens.studies.shared.run import Experiment


class LensesStudy(Study[LensesArguments, "LensesSummary"]):
    """Lenses: one picture, contrast pairs, and real pictures along the change."""

    name = "lenses"
    title = "Candidate lenses"
    question = "Which way of showing a head says best which names the head adds?"

    @property
    def arguments(self) -> type[LensesArguments]:
        """Options of the command line."""
        return LensesArguments

    def prepare(
        self, arguments: LensesArguments, command: str, load: "ModelLoader"
    ) -> "Experiment[Any, LensesSummary]":
        """Checks options, and loads pictures and models."""
        from steerlens.lenses import Strength
        from steerlens.studies.lenses.bank import known_names
        from steerlens.studies.lenses.experiment import lenses_experiment
        from steerlens.studies.lenses.options import LensesOptions
        from steerlens.studies.shared.inputs import decode_options, decoder_seeds, load_subjects

        settings = arguments.settings
        if not arguments.decoder:
            refuse_unused(arguments, ("judge", "seeds"), "nothing is decoded with --no-decoder")
        if arguments.bank is None and settings.data is None:
            refuse_unused(arguments, ("bank_size", "neighbours"), "there are no real pictures without --bank or --data")
        strengths = tuple(Strength.parse(strength) for strength in arguments.strengths)
        subjects = load_subjects(settings, arguments.choose, arguments.count)
        source = _bank(arguments)
        models = load(settings, arguments.judge, decoder=arguments.decoder)
        spec = models.pair.encoder.spec
        refuse_more(arguments, "heads_per_picture", spec.n_layers * spec.n_heads, "heads in this encoder")
        refuse_more(arguments, "names", known_names(models.pair.vocabulary, source), "names that the pair knows")
        options = LensesOptions(
            decode_options(models.pair, settings),
            strengths,
            arguments.neighbours,
            decoder_seeds(settings, arguments.seeds),
            arguments.ablation,
            arguments.names,
            arguments.heads_per_picture,
        )
        return lenses_experiment(models.pair, subjects, options, source=source, judge=models.judge, command=command)

    @property
    def report(self) -> "Report[LensesSummary]":
        """Functions that read and report its summary."""
        from steerlens.studies.lenses.conclusion import lenses_claims
        from steerlens.studies.lenses.figures import summary_figures
        from steerlens.studies.lenses.findings import lenses_bars, lenses_findings
        from steerlens.studies.lenses.results import LensesSummary
        from steerlens.studies.lenses.section import lenses_section
        from steerlens.studies.lenses.terminal import lenses_lines

        return Report(
            summary=LensesSummary,
            model=lambda summary: summary.model,
            lines=lenses_lines,
            bars=lenses_bars,
            findings=lenses_findings,
            section=lenses_section,
            conclusion=lambda summary: summary.conclusion,
            claims=lenses_claims,
            opening=("Which lens shows which names a head adds?", "scores"),
            figures=summary_figures,
        )


def _bank(arguments: LensesArguments) -> "PictureSource | None":
    """Pictures of the bank: those of an index, else scenes of the data folder; None without either."""
    from steerlens.studies.lenses.bank import index_source, scenes_source

    settings = arguments.settings
    if arguments.bank_size < max(arguments.neighbours, default=1):
        raise UsageError(f"a bank of {arguments.bank_size} pictures is smaller than the number of real pictures shown.")
    if arguments.bank is not None:
        source = index_source(arguments.bank, arguments.bank_size, settings.seed)
    elif settings.data is not None:
        source = scenes_source(settings.data, arguments.bank_size, settings.seed)
    else:
        return None
    refuse_more(arguments, "bank_size", len(source.names), "pictures for the bank")
    return source
