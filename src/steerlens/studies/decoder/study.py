"""Entry of the decoder study in the table of studies: its command, its summary and its report."""

from typing import TYPE_CHECKING, Any

from steerlens.errors import UsageError
from steerlens.studies.decoder.arguments import DecoderArguments
from steerlens.studies.shared.arguments import refuse_more, refuse_unused
from steerlens.studies.shared.study import Report, Study

if TYPE_CHECKING:
    from steerlens.studies.decoder.results import DecoderSummary
    from steerlens.studies.shared.inputs import ModelLoader
    from steerlens.studies.shared.run import Experiment

_FEWEST_PICTURES = 4

_WHOLE = (0.0, 1.0)
"""Guidance interval of all steps, which changes nothing where there is no guidance."""


class DecoderStudy(Study[DecoderArguments, "DecoderSummary"]):
    """Decoder: how much it invents, and how many steps are enough."""

    name = "decoder"
    title = "Decoder"
    question = "How much does the decoder add to the requested embedding, and how many steps are worth their time?"
    of_settings = True

    @property
    def arguments(self) -> type[DecoderArguments]:
        """Options of the command line."""
        return DecoderArguments

    def prepare(
        self, arguments: DecoderArguments, command: str, load: "ModelLoader"
    ) -> "Experiment[Any, DecoderSummary]":
        """Checks options, and loads pictures and models."""
        from steerlens.lenses import Strength
        from steerlens.studies.decoder.experiment import decoder_experiment
        from steerlens.studies.decoder.options import DecoderOptions, sweep
        from steerlens.studies.shared.inputs import decode_options, decoder_seeds, load_subjects
        from steerlens.sweep import default_strength

        settings, count = arguments.settings, arguments.count
        if count < _FEWEST_PICTURES:
            raise UsageError(f"the decoder study needs at least {_FEWEST_PICTURES} pictures, not {count}.")
        strength = None if arguments.strength is None else Strength.parse(arguments.strength)
        # Nothing is chosen on the selection: both halves are reported on.
        subjects = load_subjects(settings, count // 2, count - count // 2)
        models = load(settings, arguments.judge)
        spec = models.pair.encoder.spec
        refuse_more(arguments, "heads", spec.n_layers * spec.n_heads, "heads in this encoder")
        default = decode_options(models.pair, settings)
        if default.guidance <= 1 and arguments.sweep_intervals != (_WHOLE,):
            why = f"the decoder runs without guidance (--guidance {default.guidance:g})"
            refuse_unused(arguments, ("sweep_intervals",), why)
        options = DecoderOptions(
            sweep(
                default,
                arguments.sweep_steps,
                arguments.sweep_guidance,
                arguments.sweep_schedulers,
                arguments.sweep_intervals,
            ),
            strength or default_strength(models.pair.card),
            arguments.target,
            decoder_seeds(settings, arguments.seeds),
            arguments.reference_steps,
            arguments.reference_seeds,
            arguments.heads,
        )
        return decoder_experiment(
            models.pair, subjects, options, wanted=arguments.share, judge=models.judge, command=command
        )

    @property
    def report(self) -> "Report[DecoderSummary]":
        """Functions that read and report its summary."""
        from steerlens.studies.decoder.conclusion import decoder_claims, decoder_conclusion
        from steerlens.studies.decoder.figures import summary_figures
        from steerlens.studies.decoder.findings import decoder_bars, decoder_findings
        from steerlens.studies.decoder.results import DecoderSummary
        from steerlens.studies.decoder.section import decoder_section
        from steerlens.studies.decoder.terminal import decoder_lines

        return Report(
            summary=DecoderSummary,
            model=lambda summary: summary.model,
            lines=decoder_lines,
            bars=decoder_bars,
            findings=decoder_findings,
            section=decoder_section,
            conclusion=decoder_conclusion,
            claims=decoder_claims,
            opening=("Agreement of pictures over the number of denoising steps", "steps"),
            figures=summary_figures,
        )
